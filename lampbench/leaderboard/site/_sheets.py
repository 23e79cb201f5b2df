"""Small tables of text: what a run's and a board's facts are shown in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lampbench.leaderboard.site._numbers import ABSENT


@dataclass(frozen=True)
class Fact:
    """A name and what is behind it; ``code`` sets it in the font of code."""

    name: str
    text: str
    code: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        about: A sentence under the heading.
        text_columns: How many columns, from the left, hold words; the others hold numbers.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    about: str = ""


def text_of(value: Any) -> str:
    """A value of a row as text: strings as they are, null as a dash, everything else as JSON."""
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and values as rows, in order of name."""
    return tuple((name, text_of(values[name])) for name in sorted(values))


def facts(values: Iterable[tuple[str, Any]], code: frozenset[str] = frozenset()) -> tuple[Fact, ...]:
    """Facts in the given order."""
    return tuple(Fact(name, text_of(value), name in code) for name, value in values)
