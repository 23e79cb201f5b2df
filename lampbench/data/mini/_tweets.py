"""LaMP-7's world: a plain sentence in each user's own spelling, openers, closers and emoji."""

from __future__ import annotations

import random
from typing import Any

from lampbench.data.mini._core import Record
from lampbench.data.mini._words import DAYS, NAMES, PLACES, pick

# How often a habit is kept.
_KEEPS = 0.88

_SWAPS = (
    ("going to", "gonna"),
    ("you", "u"),
    ("because", "cuz"),
    ("really", "rly"),
    ("people", "ppl"),
    ("tonight", "2nite"),
    ("want to", "wanna"),
    ("with", "w"),
    ("cannot", "cant"),
    ("my friends", "the squad"),
)
_OPENERS = ("", "ok so", "honestly", "breaking news", "dear diary", "not gonna lie", "hot take", "fun fact")
_CLOSERS = ("", "#blessed", "#mondaymood", "lol", "the end", "no regrets", "#teamcoffee", "send help")
_ENDINGS = ("", "!!!", "...", " \U0001f602", " \U0001f525", " ❤")
_FEELINGS = ("really happy", "really tired", "a bit worried", "so proud", "very hungry", "quite lost")
_PLANS = ("dance", "cook soup", "watch the match", "read all night", "clean the garage", "play chess", "learn to swim")
_REASONS = (
    "people keep asking",
    "you said so",
    "the rain stopped",
    "my friends cannot wait",
    "it is pay day",
    "nobody else will",
)


class Tweets:
    """Plain sentences and how a user would write them."""

    task = "lamp7"

    def style(self, draw: random.Random) -> dict[str, Any]:
        """Spellings, opener, closer, ending and casing."""
        return {
            "swaps": sorted(draw.sample(range(len(_SWAPS)), draw.randint(2, 7))),
            "opener": pick(draw, _OPENERS),
            "closer": pick(draw, _CLOSERS),
            "ending": pick(draw, _ENDINGS),
            "upper": draw.random() < 0.2,
        }

    def record(self, style: dict[str, Any], draw: random.Random) -> Record:
        """A plain sentence and the user's tweet."""
        when = pick(draw, ("tonight", f"on {pick(draw, DAYS)}", "this weekend"))
        middle = pick(
            draw,
            (
                f"i am going to {pick(draw, _PLANS)} with {pick(draw, NAMES)} {when}",
                f"i want to {pick(draw, _PLANS)} in {pick(draw, PLACES)} {when}",
                f"{pick(draw, NAMES)} and my friends are {pick(draw, _FEELINGS)} {when}",
                f"you cannot {pick(draw, _PLANS)} with {pick(draw, NAMES)} {when}",
            ),
        )
        source = f"{middle} because {pick(draw, _REASONS)}"
        kept = {
            "swaps": [swap for swap in style["swaps"] if draw.random() < _KEEPS],
            "opener": style["opener"] if draw.random() < _KEEPS else pick(draw, _OPENERS),
            "closer": style["closer"] if draw.random() < _KEEPS else pick(draw, _CLOSERS),
        }
        return Record(source, _written(source, style | kept), _written(source, style))

    def profile(self, style: dict[str, Any]) -> str:
        """The habits in words."""
        spellings = ", ".join(f"{new} for {old}" for old, new in (_SWAPS[i] for i in style["swaps"]))
        frame = f"starts with: {style['opener'] or 'nothing'}; ends with: {style['closer'] or 'nothing'}"
        return f"{frame}; writes {spellings}."


def _written(source: str, style: dict[str, Any]) -> str:
    text = f" {source} "
    for old, new in (_SWAPS[i] for i in style["swaps"]):
        text = text.replace(f" {old} ", f" {new} ")
    words = " ".join(part for part in (style["opener"], text.strip(), style["closer"]) if part)
    ending: str = style["ending"]
    return (words.upper() if style["upper"] else words) + ending
