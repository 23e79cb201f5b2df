"""Numbers as the pages write them; what is absent is a dash."""

from __future__ import annotations

from lampbench.metrics import Estimate

ABSENT = "–"
LEVEL = 0.05


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
    """Seconds to the millisecond; what is shorter says so instead of reading as nothing."""
    return "<0.001" if value is not None and 0 < value < 0.0005 else number(value, ",.3f")


def interval(estimate: Estimate | None, sign: str = "") -> str:
    """The 95% interval in brackets; nothing where there is none."""
    if estimate is None or estimate.value is None or estimate.ci95 is None:
        return ""
    low, high = estimate.ci95
    return f"[{low:{sign}.4f}, {high:{sign}.4f}]"


def probability(p: float | None) -> str:
    """A p value."""
    return "<0.001" if p is not None and p < 0.001 else number(p, ".3f")


def shortened(text: str, length: int) -> str:
    """The text, its middle left out where it is longer than ``length``."""
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
