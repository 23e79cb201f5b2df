"""How the values of a board are written: the text of a cell, and numbers in their formats."""

from __future__ import annotations

from dataclasses import dataclass

from lampbench.leaderboard._compare import Moved
from lampbench.metrics import Estimate

ABSENT = "–"


@dataclass(frozen=True)
class Cell:
    """What a table shows of a value.

    Attributes:
        detail: What pages write smaller, after the text: an interval.
        sort: What the column is sorted by; None goes last, whatever the order.
    """

    text: str
    detail: str = ""
    sort: float | str | None = None

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".rstrip()


def number(value: float | None, style: str) -> str:
    """A number in a format; a dash for None."""
    return ABSENT if value is None else f"{value:{style}}"


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return number(value, ",.0f")


def score(value: float | None) -> str:
    """A metric's value."""
    return number(value, ".4f")


def share(value: float | None) -> str:
    """A share as a percentage."""
    return number(value, ".1%")


def seconds(value: float | None) -> str:
    """Seconds to the millisecond; a shorter time says so instead of reading as nothing."""
    return "<0.001" if value is not None and 0 < value < 0.0005 else number(value, ",.3f")


def megabytes(value: float | None) -> str:
    """Bytes as whole megabytes of a million."""
    return count(None if value is None else value / 1e6)


def interval(estimate: Estimate | None, sign: str = "") -> str:
    """The 95% interval in brackets; empty if there is none."""
    if estimate is None or estimate.value is None or estimate.ci95 is None:
        return ""
    low, high = estimate.ci95
    return f"[{low:{sign}.4f}, {high:{sign}.4f}]"


def estimate_cell(estimate: Estimate | None, sign: str = "") -> Cell:
    """A value with its interval."""
    value = estimate.value if estimate else None
    return Cell(number(value, f"{sign}.4f"), interval(estimate, sign), value)


def one_digit(value: float | None) -> str:
    """A number to a tenth."""
    return number(value, ",.1f")


def p_value(value: float | None) -> str:
    """A p-value; a tiny one says so instead of reading as nothing."""
    return "<0.001" if value is not None and value < 0.001 else number(value, ".3f")


def moved_cell(moved: Moved | None) -> Cell:
    """Users helped and hurt."""
    return Cell(f"{moved.helped}/{moved.hurt}", sort=moved.helped - moved.hurt) if moved else Cell(ABSENT)
