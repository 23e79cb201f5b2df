"""What the six worlds share: records, styles, who may see which of them, and common words.

Everything derives from names through SHA-256, so the same seed gives the same text in any process.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from lampbench.core import derive_seed, digest

VERSION = 2
SEED = 0
LABEL = "mini (synthetic)"

# Who a user belongs to. "model" users train the bundled model and appear in no split.
Population = Literal["train", "dev", "model"]

# One of so many styles and source texts belongs to the suite, the others to the model's training.
_PARTS = 4


@dataclass(frozen=True, slots=True)
class Record:
    """One thing a user wrote.

    Attributes:
        source: The text that a query asks about.
        target: What the user answered, noise included.
        ideal: What the user answers without noise: the best that a method can know.
    """

    source: str
    target: str
    ideal: str


class Generator(Protocol):
    """One task's world: how users differ, and what they write. A style is a JSON value."""

    task: str

    def style(self, draw: random.Random) -> dict[str, Any]:
        """A user's latent style."""

    def record(self, style: dict[str, Any], draw: random.Random) -> Record:
        """One thing a user of this style writes."""

    def profile(self, style: dict[str, Any]) -> str:
        """The style in words, as a written profile would put it."""


@dataclass(frozen=True)
class MiniUser:
    """A user of a population: a style, and an endless stream of records."""

    generator: Generator
    population: Population
    index: int
    seed: int = SEED

    @property
    def style(self) -> dict[str, Any]:
        """The latent style; suite and model's training share none."""
        draw = self.draw("style")
        while True:
            style = self.generator.style(draw)
            if _belongs(style, self.population):
                return style

    def records(self) -> Iterator[Record]:
        """What the user writes, one record after another; suite and training share no source text."""
        style, draw = self.style, self.draw("records")
        while True:
            record = self.generator.record(style, draw)
            if _belongs(record.source, self.population):
                yield record

    def draw(self, purpose: str) -> random.Random:
        """Random numbers for a named purpose, this user's own."""
        names = ("mini", str(VERSION), self.generator.task, self.population, str(self.index), purpose)
        return random.Random(derive_seed(self.seed, *names))


def _belongs(value: Any, population: Population) -> bool:
    in_suite = int(digest(value)[:8], 16) % _PARTS == 0
    return in_suite == (population != "model")


_T = TypeVar("_T")

NAMES = (
    "Amara", "Boris", "Chen", "Dalia", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jonas", "Kemi", "Lucia",
    "Marek", "Nadia", "Oskar", "Priya", "Quinn", "Rosa", "Stefan", "Tomas", "Ursula", "Viktor", "Wanda", "Yusuf",
)  # fmt: skip
PLACES = (
    "Ashford", "Belmont", "Corvale", "Dunmore", "Eastwick", "Fairhaven", "Glenrock", "Harbor Bay", "Irondale",
    "Juniper", "Kingsley", "Lakewood", "Milltown", "Northgate", "Oakridge", "Pinehurst", "Redcliff", "Stonebridge",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def pick(draw: random.Random, options: Sequence[_T]) -> _T:
    """One of ``options``."""
    return options[draw.randrange(len(options))]
