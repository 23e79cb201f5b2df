"""Axes of the plots: values to pixels, round ticks, and names beside dots, if there is room."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

_LETTER = 6.9
_MOST_LABELS = 40
# Where a name may stand beside its dot: its anchor's distance, its side, and its top and bottom.
_SPOTS: tuple[tuple[float, float, Literal["start", "end"], float, float], ...] = (
    (8, 4, "start", -6.5, 6.5),
    (-8, 4, "end", -6.5, 6.5),
    (4, -8, "start", -21, -6),
    (4, 17, "start", 6, 19),
    (-4, -8, "end", -21, -6),
    (-4, 17, "end", 6, 19),
)
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A linear axis from ``low`` at pixel ``start`` to ``high`` at pixel ``end``."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


@dataclass(frozen=True)
class LogAxis(Axis):
    """A logarithmic axis; ``low`` and ``high`` are decimal exponents.

    Attributes:
        zero: The pixel of 0, left of everything else; None if no value is 0.
    """

    zero: float | None = None

    def at(self, value: float) -> float:
        """The pixel of a value."""
        if value <= 0:
            return self.start if self.zero is None else self.zero
        return super().at(math.log10(value))


@dataclass(frozen=True)
class Label:
    """A name and where it begins, or ends if ``side`` is ``end``."""

    text: str
    x: float
    y: float
    side: Literal["start", "end"]


def linear(values: Iterable[float], start: float, end: float, *, wanted: int = 6) -> Axis:
    """An axis that holds all values, with about ``wanted`` round ticks."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / wanted)
    first, last = math.floor(low / step), math.ceil(high / step)
    digits = max(0, -math.floor(math.log10(step)))
    axis = Axis(first * step, last * step, start, end)
    # Adding 0.0 turns -0.0 into 0.0.
    ticks = tuple(Tick(axis.at(n * step), f"{n * step + 0.0:.{digits}f}") for n in range(first, last + 1))
    return replace(axis, ticks=ticks)


def logarithmic(values: Iterable[float], start: float, end: float) -> LogAxis:
    """An axis over whole decades that hold all values above 0; 0 gets a place of its own."""
    known = list(values)
    positive = [value for value in known if value > 0]
    gap = 34.0 if len(positive) < len(known) else 0.0
    low = math.floor(math.log10(min(positive))) if positive else 0
    high = max(math.ceil(math.log10(max(positive))) if positive else 1, low + 1)
    axis = LogAxis(low, high, start + gap, end, zero=start if gap else None)
    every = max(1, math.ceil((high - low) / 5))
    ticks = [Tick(axis.at(10.0**n), _power(n)) for n in range(low, high + 1, every)] if positive else []
    return replace(axis, ticks=(*([Tick(start, "0")] if gap else []), *ticks))


def place_labels(
    texts: Sequence[str], points: Sequence[tuple[float, float]], first: Sequence[bool], room: _Box
) -> list[Label | None]:
    """A place for each name that covers no dot and no other name, or None.

    Args:
        texts: The names.
        points: Their dots.
        first: Whose names matter most.
        room: Left, top, right, bottom of the plot.
    """
    taken: list[_Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in points[: 4 * _MOST_LABELS]]
    labels: list[Label | None] = [None] * len(texts)
    for i in sorted(range(len(texts)), key=lambda i: not first[i])[:_MOST_LABELS]:
        for label, box in _candidates(texts[i], *points[i]):
            if _within(box, room) and not any(_meet(box, other) for other in taken):
                labels[i] = label
                taken.append(box)
                break
    return labels


def _candidates(text: str, x: float, y: float) -> Iterator[tuple[Label, _Box]]:
    width = _LETTER * len(text)
    for right, down, side, top, bottom in _SPOTS:
        left = x + right - (width if side == "end" else 0)
        yield Label(text, x + right, y + down, side), (left, y + top, left + width, y + bottom)


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _within(box: _Box, room: _Box) -> bool:
    return box[0] >= room[0] and box[1] >= room[1] and box[2] <= room[2] and box[3] <= room[3]


def _round_step(step: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(step))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= step * 0.999)


def _power(exponent: int) -> str:
    if exponent < -3:
        return f"1e{exponent}"
    if exponent < 0:
        return f"{10.0**exponent:.{-exponent}f}"
    return f"{10**exponent:,}" if exponent < 7 else f"1e{exponent}"
