"""Worlds whose answer is a text: headlines (LaMP-4), titles (LaMP-5), tweets (LaMP-7)."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lampbench.data.mini._core import DAYS, NAMES, PLACES, Record, pick

# How often an author uses the first and the second template; otherwise any.
_FIRST, _SECOND = 0.78, 0.12
_CASES = ("as is", "title", "upper")


class _Templates(ABC):
    """An author has two templates, a register of words and a casing."""

    task: str
    templates: tuple[str, ...]
    # Word -> how each register says it.
    registers: ClassVar[Mapping[str, tuple[str, ...]]]
    # Stand-ins that a profile fills the template with.
    shown: ClassVar[Mapping[str, str]]

    def style(self, draw: random.Random) -> dict[str, Any]:
        """Two templates, a register, a casing."""
        first, second = draw.sample(range(len(self.templates)), 2)
        registers = len(next(iter(self.registers.values())))
        return {"first": first, "second": second, "register": draw.randrange(registers), "case": pick(draw, _CASES)}

    @abstractmethod
    def content(self, draw: random.Random) -> tuple[str, dict[str, str]]:
        """A source text and the values that templates are filled with."""

    def record(self, style: dict[str, Any], draw: random.Random) -> Record:
        """A source text and what the author puts over it."""
        source, values = self.content(draw)
        chance = draw.random()
        if chance < _FIRST:
            number = style["first"]
        elif chance < _FIRST + _SECOND:
            number = style["second"]
        else:
            number = draw.randrange(len(self.templates))
        return Record(source, self._fill(number, style, values), self._fill(style["first"], style, values))

    def profile(self, style: dict[str, Any]) -> str:
        """The first template, filled with stand-ins."""
        values = {name: next(iter(self.registers)) if name == "v" else word for name, word in self.shown.items()}
        return f"writes: {self._fill(style['first'], style, values)}"

    def _fill(self, number: int, style: dict[str, Any], values: dict[str, str]) -> str:
        worded = dict(values)
        if "v" in values:
            worded["v"] = self.registers[values["v"]][style["register"]]
        text = self.templates[number].format(**worded)
        return text.title() if style["case"] == "title" else text.upper() if style["case"] == "upper" else text


class Headlines(_Templates):
    """LaMP-4's world."""

    task = "lamp4"
    templates = (
        "{s} {v} {o}",
        "why {s} {v} {o}",
        "{place}: {s} {v} {o}",
        "{o}, {s} and a long day in {place}",
        "watch {s} as crowd in {place} sees {o}",
        "{s} just {v} {o} and everyone is talking",
        "here is how {s} {v} {o} in {place}",
        "five things to know about {s} and {o}",
        "what {o} means for {place}",
    )
    registers: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "opens": ("opens", "unveils", "kicks off"),
        "blocks": ("blocks", "slams", "shuts down"),
        "praises": ("praises", "hails", "raves about"),
        "buys": ("buys", "acquires", "snaps up"),
        "leaves": ("leaves", "abandons", "walks out on"),
        "fixes": ("fixes", "overhauls", "saves"),
        "sues": ("sues", "takes to court", "goes after"),
        "loses": ("loses", "forfeits", "blows"),
    }
    shown: ClassVar[Mapping[str, str]] = {"s": "someone", "o": "something", "place": "town", "v": ""}
    _objects = (
        "the tram line", "a river park", "the night school", "an old cinema", "the fish market", "a wind farm",
        "the town archive", "a ferry dock", "the clock tower", "a dance hall", "the grain silo", "a bike bridge",
        "the corner clinic", "a radio tower", "the public pool", "a puppet theatre",
    )  # fmt: skip
    _filler = (
        "according to people close to the matter",
        "after months of talks",
        "to the surprise of many",
        "as rain fell",
    )
    _more = ("Nobody was hurt", "The mayor smiled", "A second plan is ready", "Tickets sold out", "Traffic stopped")

    def content(self, draw: random.Random) -> tuple[str, dict[str, str]]:
        """An article and who did what to what, where."""
        values = {
            "s": pick(draw, NAMES),
            "v": pick(draw, tuple(self.registers)),
            "o": pick(draw, self._objects),
            "place": pick(draw, PLACES),
        }
        source = (
            f"On {pick(draw, DAYS)} in {values['place']}, {values['s']} {values['v']} {values['o']} "
            f"{pick(draw, self._filler)}. {pick(draw, self._more)}."
        )
        return source, values


class Titles(_Templates):
    """LaMP-5's world."""

    task = "lamp5"
    templates = (
        "{a} for {p}",
        "towards {m} {p} with {a}",
        "{a}: a study of {p} in {d}",
        "{p} via {a}",
        "can {a} solve {p}",
        "{p} meets {r}: lessons from {d}",
        "a note on {m} {p}",
        "rethinking {p}: {r} is all we need",
        "how to {v} {p} in {d}",
    )
    registers: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "improve": ("improve", "boost", "advance"),
        "measure": ("measure", "quantify", "benchmark"),
        "understand": ("understand", "demystify", "characterise"),
        "scale": ("scale", "supercharge", "accelerate"),
    }
    shown: ClassVar[Mapping[str, str]] = {
        "a": "a method",
        "p": "a problem",
        "m": "better",
        "d": "a field",
        "r": "data",
        "v": "",
    }
    _approaches = (
        "graph pruning", "sparse voting", "mirror descent", "lazy sampling", "tree hashing", "soft clustering",
        "random routing", "nested attention", "local search", "kernel mixing", "greedy alignment", "spectral rules",
    )  # fmt: skip
    _problems = (
        "speech parsing", "crop forecasting", "image sorting", "drug ranking", "traffic control", "song matching",
        "fault detection", "map drawing", "price learning", "text repair", "star counting", "gene tracing",
    )  # fmt: skip
    _domains = ("hospitals", "markets", "oceans", "schools", "networks", "factories", "forests", "cities")
    _resources = ("old logs", "cheap sensors", "public maps", "noisy labels", "small models", "open archives")
    _measures = ("robust", "fair", "fast", "private", "stable", "simple")

    def content(self, draw: random.Random) -> tuple[str, dict[str, str]]:
        """An abstract and its parts."""
        values = {
            "a": pick(draw, self._approaches),
            "p": pick(draw, self._problems),
            "d": pick(draw, self._domains),
            "r": pick(draw, self._resources),
            "m": pick(draw, self._measures),
            "v": pick(draw, tuple(self.registers)),
        }
        pieces: Sequence[str] = (
            f"We {values['v']} {values['p']} in {values['d']}",
            f"Our method, {values['a']}, learns from {values['r']}",
            f"The result is {values['m']}",
        )
        return ". ".join(draw.sample(pieces, len(pieces))) + ".", values


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
