"""The plot of users: how each user's own score changes against zero-shot, an entry a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._compare import user_changes
from lampbench.leaderboard.site import _numbers as numbers
from lampbench.leaderboard.site._axes import Axis, linear

WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 760, 236, 596, 10, 34
_BINS = 20
_MOST_DRAWN = 60
_UNCHANGED = 1e-9


@dataclass(frozen=True)
class UserRow:
    """An entry's line.

    Attributes:
        worse, better: Bars as paths.
        quantiles: Smallest, 10%, median, 90% and largest change; positive is better.
    """

    name: str
    label: str
    y: float
    worse: str
    better: str
    hurt: int
    unchanged: int
    helped: int
    quantiles: tuple[str, ...]


@dataclass(frozen=True)
class UserPlot:
    """Users' changes, an entry a line.

    Attributes:
        most: How many users the highest bar stands for.
        left_out: Entries that are not drawn.
    """

    metric: str
    width: int
    height: float
    top: float
    bottom: float
    axis: Axis
    most: int
    rows: tuple[UserRow, ...]
    left_out: int


@dataclass(frozen=True)
class _Changes:
    """An entry, its users' changes, and how many fall into each bin."""

    entry: Entry
    values: Any
    counts: Any


def user_plot(board: Board) -> UserPlot | None:
    """Ranked entries against zero-shot; None where the board has no zero-shot, or no user's own score says anything."""
    primary = board.task.primary
    base = next((entry for entry in board.entries if entry.method == "zero-shot" and entry.gain is None), None)
    others = [entry for entry in board.entries if entry.rank is not None and entry.gain is not None]
    if base is None or not others or not base.results[0].sums[primary.key].per_user:
        return None
    drawn = [(entry, user_changes(entry.results, base.results, primary)) for entry in others[:_MOST_DRAWN]]
    finite = [(entry, values[np.isfinite(values)]) for entry, values in drawn]
    widest = max((float(np.abs(values).max()) for _, values in finite if len(values)), default=0.0) or 1.0
    axis = linear([-widest, widest], _LEFT, _RIGHT)
    edges = np.linspace(axis.low, axis.high, 2 * _BINS + 1)
    changes = [_Changes(entry, values, _counts(values, edges)) for entry, values in finite]
    most = max(int(own.counts.max()) for own in changes) or 1
    rows = tuple(_row(own, _TOP + _ROW * (place + 1), axis, edges, most) for place, own in enumerate(changes))
    bottom = _TOP + _ROW * len(rows)
    return UserPlot(primary.key, WIDTH, bottom + 40, _TOP, bottom, axis, most, rows, len(others) - len(drawn))


def _counts(values: Any, edges: Any) -> Any:
    """Users a bin; who is unchanged is counted apart, or one bar would dwarf all."""
    return np.histogram(values[np.abs(values) > _UNCHANGED], bins=edges)[0]


def _row(own: _Changes, y: float, axis: Axis, edges: Any, most: int) -> UserRow:
    values = own.values
    helped, hurt = int((values > _UNCHANGED).sum()), int((values < -_UNCHANGED).sum())
    quantiles = np.quantile(values, (0, 0.1, 0.5, 0.9, 1)) if len(values) else ()
    return UserRow(
        name=own.entry.name,
        label=numbers.shortened(own.entry.name, 32),
        y=y,
        worse=_bars(own.counts[:_BINS], edges[: _BINS + 1], y, axis, most),
        better=_bars(own.counts[_BINS:], edges[_BINS:], y, axis, most),
        hurt=hurt,
        unchanged=len(values) - helped - hurt,
        helped=helped,
        quantiles=tuple(numbers.number(float(value) + 0.0, "+.4f") for value in quantiles),
    )


def _bars(counts: Any, edges: Any, y: float, axis: Axis, most: int) -> str:
    """A path of bars that stand on ``y``."""
    parts = []
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        if count:
            height = round(max(1.5, (_ROW - 8) * int(count) / most), 1)
            x, width = axis.at(float(left)) + 0.5, axis.at(float(right)) - axis.at(float(left)) - 1
            parts.append(f"M{x:.1f} {y}v-{height}h{width:.1f}v{height}z")
    return "".join(parts)
