"""LaMP-2M's world: several tags apply to a film, and the user's priorities decide."""

from __future__ import annotations

import random
from typing import Any

from lampbench.data.mini._core import Record
from lampbench.data.mini._words import NAMES, PLACES, pick
from lampbench.tasks.lamp2m import LABELS

NOISE = 0.08

_CUES = {
    "sci-fi": (
        "a starship drifts past a dying sun",
        "robots repair the orbital station",
        "a portal opens to another planet",
    ),
    "based on a book": (
        "the story follows the famous novel",
        "each chapter comes from a bestseller",
        "the script adapts an old memoir",
    ),
    "comedy": (
        "the jokes never stop",
        "a silly mistake ruins the wedding",
        "two clumsy cousins open a bakery",
    ),
    "action": (
        "cars crash across the bridge",
        "the squad fights on a moving train",
        "a helicopter chase ends in fire",
    ),
    "twist ending": (
        "nothing was what it seemed",
        "the last scene changes everything",
        "the narrator was lying all along",
    ),
    "dystopia": (
        "the state watches every home",
        "citizens trade rations under curfew",
        "books are banned by the regime",
    ),
    "dark comedy": (
        "the funeral becomes a farce",
        "a hitman hates his paperwork",
        "they laugh while hiding the body",
    ),
    "classic": (
        "critics have praised it for decades",
        "it was restored from old reels",
        "every film school teaches it",
    ),
    "psychology": (
        "a therapist doubts her own mind",
        "his memories return in fragments",
        "she cannot trust her dreams",
    ),
    "fantasy": (
        "a dragon guards the silver gate",
        "the witch lends him a spell",
        "elves march to the old forest",
    ),
    "romance": (
        "they fall in love by the sea",
        "an old letter brings them together",
        "he crosses the country to kiss her",
    ),
    "thought-provoking": (
        "it asks what a promise is worth",
        "viewers leave with hard questions",
        "it wonders who owns the truth",
    ),
    "social commentary": (
        "it mocks the housing market",
        "workers strike against the owners",
        "it shows how rumours shape a town",
    ),
    "violence": (
        "blood covers the arena floor",
        "the gang leaves no witness",
        "a brutal duel ends the feud",
    ),
    "true story": (
        "it happened in real life",
        "the events were in every newspaper",
        "the real survivors appear at the end",
    ),
}


class Tags:
    """Films with two to four tags each; a user's favourite among them is the answer."""

    task = "lamp2m"

    def style(self, draw: random.Random) -> dict[str, Any]:
        """A priority order of all tags."""
        return {"order": draw.sample(LABELS, len(LABELS))}

    def record(self, style: dict[str, Any], draw: random.Random) -> Record:
        """A film and the tag the user gives it."""
        present = draw.sample(LABELS, draw.choices((2, 3, 4), (3, 5, 2))[0])
        clauses = ", ".join(pick(draw, _CUES[tag]) for tag in present)
        source = f"In {pick(draw, PLACES)}, {pick(draw, NAMES)} learns that {clauses}."
        ideal = min(present, key=style["order"].index)
        return Record(source, pick(draw, present) if draw.random() < NOISE else ideal, ideal)

    def profile(self, style: dict[str, Any]) -> str:
        """The favourites in order, and what the user avoids."""
        return f"prefers {', '.join(style['order'][:6])}; avoids {', '.join(style['order'][-4:])}."
