"""Axes of the plots: values to places, and round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


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
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return _pixel((value - self.low) / (self.high - self.low), self.start, self.end)


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis with a place of its own for 0, left of everything else.

    Attributes:
        low, high: Decimal exponents.
        zero: The pixel of 0; None where no value is 0.
    """

    low: float
    high: float
    start: float
    end: float
    zero: float | None
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """The pixel of a value."""
        if value <= 0:
            return self.start if self.zero is None else self.zero
        return _pixel((math.log10(value) - self.low) / (self.high - self.low), self.start, self.end)


def linear(values: Iterable[float], start: float, end: float, *, wanted: int = 6) -> Axis:
    """An axis that holds all values, with about ``wanted`` round ticks."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / wanted)
    first, last = math.floor(low / step), math.ceil(high / step)
    digits = max(0, -math.floor(math.log10(step)))
    axis = Axis(first * step, last * step, start, end, ())
    # Adding 0.0 turns -0.0 into 0.0.
    ticks = tuple(Tick(axis.at(n * step), f"{n * step + 0.0:.{digits}f}") for n in range(first, last + 1))
    return Axis(axis.low, axis.high, start, end, ticks)


def logarithmic(values: Iterable[float], start: float, end: float) -> LogAxis:
    """An axis over whole decades that hold all values above 0; 0 gets a place of its own."""
    known = list(values)
    positive = [value for value in known if value > 0]
    gap = 48.0 if len(positive) < len(known) else 0.0
    low = math.floor(math.log10(min(positive))) if positive else 0
    high = math.ceil(math.log10(max(positive))) if positive else 1
    high = max(high, low + 1)
    axis = LogAxis(low, high, start + gap, end, start if gap else None, ())
    every = max(1, math.ceil((high - low) / 8))
    ticks = [Tick(axis.at(10.0**n), _power(n)) for n in range(low, high + 1, every)] if positive else []
    zero = [Tick(start, "0")] if gap else []
    return LogAxis(low, high, start + gap, end, axis.zero, (*zero, *ticks))


def _pixel(part: float, start: float, end: float) -> float:
    return round(start + part * (end - start), 1)


def _round_step(step: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(step))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= step * 0.999)


def _power(exponent: int) -> str:
    if exponent < -3:
        return f"1e{exponent}"
    if exponent < 0:
        return f"{10.0**exponent:.{-exponent}f}"
    return f"{10**exponent:,}" if exponent < 7 else f"1e{exponent}"
