"""Worlds whose answer is a label: tags of films (LaMP-2M), sections of news (LaMP-2N), stars of reviews (LaMP-3)."""

from __future__ import annotations

import random
from typing import Any

from lampbench.data.mini._core import DAYS, NAMES, PLACES, Record, pick
from lampbench.tasks.lamp2m import LABELS as TAGS
from lampbench.tasks.lamp2n import LABELS as SECTIONS

# How often an answer is not the one that the style gives.
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


_SHELF = 8
_SHELF_SHARE = 0.75


class Tags:
    """Films with two to four tags each; a user's favourite among them is the answer."""

    task = "lamp2m"

    def style(self, draw: random.Random) -> dict[str, Any]:
        """A priority order of all tags, and the combinations of tags that the user watches most."""
        order = draw.sample(TAGS, len(TAGS))
        return {"order": order, "shelf": [self._combination(draw) for _ in range(_SHELF)]}

    def record(self, style: dict[str, Any], draw: random.Random) -> Record:
        """A film and the tag the user gives it."""
        known = pick(draw, style["shelf"]) if draw.random() < _SHELF_SHARE else self._combination(draw)
        present = draw.sample(known, len(known))
        clauses = ", ".join(pick(draw, _CUES[tag]) for tag in present)
        source = f"In {pick(draw, PLACES)}, {pick(draw, NAMES)} learns that {clauses}."
        ideal = min(present, key=style["order"].index)
        return Record(source, pick(draw, present) if draw.random() < NOISE else ideal, ideal)

    def profile(self, style: dict[str, Any]) -> str:
        """The favourites in order, and what the user avoids."""
        return f"prefers {', '.join(style['order'][:6])}; avoids {', '.join(style['order'][-4:])}."

    @staticmethod
    def _combination(draw: random.Random) -> list[str]:
        return draw.sample(TAGS, draw.choices((2, 3, 4), (3, 5, 2))[0])


_BEATS = 6
_BEAT_SHARE = 0.7

_TOPICS = (
    ("travel", "food & drink", ("the street market tour", "a vineyard weekend")),
    ("travel", "culture & arts", ("the museum island", "a festival by train")),
    ("education", "parents", ("the school lunch plan", "homework for small children")),
    ("education", "politics", ("the teachers' budget", "a vote on exams")),
    ("parents", "healthy living", ("sleep for toddlers", "sugar in baby food")),
    ("style & beauty", "entertainment", ("the red carpet gowns", "a singer's perfume")),
    ("style & beauty", "women", ("salon wages", "the new skirt rules")),
    ("entertainment", "culture & arts", ("the opera on television", "a painter's film")),
    ("food & drink", "healthy living", ("the low salt soup", "fermented tea")),
    ("food & drink", "business", ("a bakery chain sale", "coffee prices")),
    ("science & technology", "business", ("the chip factory", "a battery startup")),
    ("science & technology", "education", ("coding in classrooms", "the telescope course")),
    ("science & technology", "crime", ("the stolen passwords", "a drone smuggler")),
    ("business", "politics", ("the import tax", "a bank rescue")),
    ("sports", "women", ("the league's equal pay", "a female referee")),
    ("sports", "healthy living", ("marathon knees", "swimming after sixty")),
    ("sports", "crime", ("the match fixing trial", "a stadium robbery")),
    ("women", "politics", ("the maternity bill", "a mayor's first year")),
    ("politics", "religion", ("the chapel law", "a bishop's speech")),
    ("crime", "parents", ("the missing pram", "a school bus thief")),
    ("culture & arts", "religion", ("the cathedral choir", "an icon restored")),
    ("religion", "travel", ("the pilgrim road", "a temple guesthouse")),
    ("entertainment", "sports", ("the wrestling musical", "a goalkeeper's talk show")),
    ("healthy living", "religion", ("a fasting month", "yoga in the abbey")),
)
_VERBS = ("reports on", "visits", "explains", "follows", "writes about", "questions")
_ASIDES = (
    "Readers sent many letters",
    "The council gave no comment",
    "Numbers rose again this year",
    "Neighbours disagree",
    "More details are expected soon",
)


class News:
    """Articles on topics between two sections; the author's order of sections decides."""

    task = "lamp2n"

    def style(self, draw: random.Random) -> dict[str, Any]:
        """An order of all sections, and the topics the author writes about most."""
        return {
            "order": draw.sample(SECTIONS, len(SECTIONS)),
            "beats": sorted(draw.sample(range(len(_TOPICS)), _BEATS)),
        }

    def record(self, style: dict[str, Any], draw: random.Random) -> Record:
        """An article and the section it ran in."""
        number = pick(draw, style["beats"]) if draw.random() < _BEAT_SHARE else draw.randrange(len(_TOPICS))
        first, second, phrases = _TOPICS[number]
        source = (
            f"{pick(draw, NAMES)} of {pick(draw, PLACES)} {pick(draw, _VERBS)} "
            f"{' and '.join(draw.sample(phrases, 2))} on {pick(draw, DAYS)}. {pick(draw, _ASIDES)}."
        )
        ideal = min((first, second), key=style["order"].index)
        return Record(source, pick(draw, (first, second)) if draw.random() < NOISE else ideal, ideal)

    def profile(self, style: dict[str, Any]) -> str:
        """The sections the author turns to, and the ones avoided."""
        return f"files under {', '.join(style['order'][:6])}; rarely {', '.join(style['order'][-4:])}."


_SPREAD = 0.45
_CARE = 3.0
_STRETCH = 1.1

_ASPECTS = ("price", "design", "service", "comfort", "packaging", "battery")
_OPINIONS = {
    -2: ("terrible", "a disaster", "simply broken", "an insult"),
    -1: ("weak", "a bit poor", "below average", "not quite right"),
    0: ("fine", "ordinary", "as expected", "neither good nor bad"),
    1: ("good", "quite nice", "better than most", "pleasant"),
    2: ("superb", "a dream", "simply perfect", "outstanding"),
}
_THINGS = ("lamp", "kettle", "radio", "backpack", "chair", "camera", "novel", "headset", "blender", "watch")


class Reviews:
    """Reviews of three aspects; each user has a leniency, a scale and one aspect that counts most."""

    task = "lamp3"

    def style(self, draw: random.Random) -> dict[str, Any]:
        """Shift and scale of the stars, and the aspect that counts three times."""
        return {
            "shift": round(draw.uniform(-1.4, 1.4), 2),
            "scale": round(draw.uniform(0.5, 1.5), 2),
            "cares": pick(draw, _ASPECTS),
        }

    def record(self, style: dict[str, Any], draw: random.Random) -> Record:
        """A review and its stars."""
        mood = draw.gauss(0, 1)
        opinions = {aspect: max(-2, min(2, round(draw.gauss(mood, 0.9)))) for aspect in draw.sample(_ASPECTS, 3)}
        said = ", ".join(f"the {aspect} is {pick(draw, _OPINIONS[value])}" for aspect, value in opinions.items())
        source = f"{pick(draw, NAMES)} got this {pick(draw, _THINGS)} in {pick(draw, PLACES)}: {said}."
        weights = {aspect: _CARE if aspect == style["cares"] else 1.0 for aspect in opinions}
        mean = sum(weights[a] * value for a, value in opinions.items()) / sum(weights.values())
        stars = 3 + style["shift"] + style["scale"] * _STRETCH * mean
        return Record(source, _clip(stars + draw.gauss(0, _SPREAD)), _clip(stars))

    def profile(self, style: dict[str, Any]) -> str:
        """Leniency, scale and taste in words."""
        level = "low" if style["shift"] < -0.5 else "high" if style["shift"] > 0.5 else "middling"
        width = "narrow" if style["scale"] < 0.85 else "wide" if style["scale"] > 1.15 else "usual"
        return f"gives {level} scores over a {width} range; cares most about {style['cares']}."


def _clip(stars: float) -> str:
    return str(max(1, min(5, round(stars))))
