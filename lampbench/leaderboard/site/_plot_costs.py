"""The plots of score against cost: what buys what, and which entries nothing beats on both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard.site import _numbers as numbers
from lampbench.leaderboard.site._axes import Axis, LogAxis, linear, logarithmic
from lampbench.leaderboard.site._columns import direction
from lampbench.leaderboard.site._labels import Label, place_labels

WIDTH, HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 736, 16, 322
_MOST_INTERVALS = 60


@dataclass(frozen=True)
class CostPoint:
    """An entry's dot.

    Attributes:
        low, high: Pixels of the interval's ends; None where it is not drawn.
        front: Whether no entry that may be compared is better on one and as good on the other.
        label: Its name beside it; None where there is no room.
    """

    name: str
    x: float
    y: float
    low: float | None
    high: float | None
    score: str
    cost: str
    hardware: str
    front: bool
    label: Label | None


@dataclass(frozen=True)
class CostPlot:
    """Score against a cost.

    Attributes:
        key: A word for the page's own use.
        cost: What the cost is.
        fronts: The Pareto front as a line; one a class of hardware where the cost is time.
        by_hardware: Whether entries of different hardware are not compared.
        left_out: Ranked entries whose cost was not measured.
    """

    key: str
    metric: str
    good: str
    cost: str
    x: LogAxis
    y: Axis
    points: tuple[CostPoint, ...]
    fronts: tuple[str, ...]
    by_hardware: bool
    left_out: int

    width, height, left, right, top, bottom = WIDTH, HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM


@dataclass(frozen=True)
class _Known:
    """An entry with both numbers."""

    entry: Entry
    score: float
    cost: float


def parameters_plot(board: Board) -> CostPlot | None:
    """Score against trainable parameters a user."""
    return _plot(
        board, "params", "trainable parameters a user", lambda e: float(e.user_parameters), numbers.count, False
    )


def seconds_plot(board: Board) -> CostPlot | None:
    """Score against seconds a user; time is compared on the same hardware only."""
    return _plot(board, "seconds", "seconds a user", lambda e: e.seconds_per_user, numbers.seconds, True)


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of each (score, cost), whether no other is as good on both and better on one; the higher score is better."""
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    front = [False] * len(points)
    best: tuple[float, float] | None = None
    for i in order:
        score, cost = points[i]
        # Sorted by cost: only a better score than everything cheaper counts, or the very same two numbers.
        if best is None or score > best[0] or (score, cost) == best:
            front[i], best = True, (score, cost)
    return front


def _plot(
    board: Board,
    key: str,
    title: str,
    cost_of: Callable[[Entry], float | None],
    text: Callable[[float | None], str],
    by_hardware: bool,
) -> CostPlot | None:
    primary = board.task.primary
    ranked = [entry for entry in board.entries if entry.rank is not None]
    known = [
        _Known(entry, score, cost)
        for entry in ranked
        if (score := entry.scores[primary.key][0].value) is not None and (cost := cost_of(entry)) is not None
    ]
    if not known:
        return None
    few = len(known) <= _MOST_INTERVALS
    x = logarithmic([own.cost for own in known], _LEFT + 16, _RIGHT - 16)
    y = linear([end for own in known for end in _ends(own, primary.key, few)], _BOTTOM, _TOP)
    classes = [own.entry.hardware if by_hardware else "" for own in known]
    sign = 1 if primary.higher_is_better else -1
    front = _fronts(known, classes, sign)
    places = [(x.at(own.cost), y.at(own.score)) for own in known]
    labels = place_labels(
        [numbers.shortened(own.entry.name, 28) for own in known], places, front, (_LEFT, _TOP, WIDTH, _BOTTOM)
    )
    points = tuple(
        CostPoint(
            name=own.entry.name,
            x=at[0],
            y=at[1],
            low=y.at(_ends(own, primary.key, few)[0]) if few else None,
            high=y.at(_ends(own, primary.key, few)[-1]) if few else None,
            score=numbers.score(own.score),
            cost=text(own.cost),
            hardware=own.entry.hardware,
            front=marked,
            label=label,
        )
        for own, at, marked, label in zip(known, places, front, labels, strict=True)
    )
    lines = tuple(
        _steps([place for place, own, marked in zip(places, classes, front, strict=True) if marked and own == name])
        for name in dict.fromkeys(classes)
    )
    return CostPlot(
        key, primary.key, direction(primary), title, x, y, points, lines, by_hardware, len(ranked) - len(known)
    )


def _ends(own: _Known, metric: str, with_interval: bool) -> tuple[float, ...]:
    interval = own.entry.scores[metric][0].ci95
    return interval if interval and with_interval else (own.score,)


def _fronts(known: Sequence[_Known], classes: Sequence[str], sign: int) -> list[bool]:
    front = [False] * len(known)
    for name in dict.fromkeys(classes):
        members = [i for i, own in enumerate(classes) if own == name]
        for i, marked in zip(members, pareto([(sign * known[i].score, known[i].cost) for i in members]), strict=True):
            front[i] = marked
    return front


def _steps(places: Sequence[tuple[float, float]]) -> str:
    """A path that goes right, then up: between two points of a front nothing lies beyond the corner."""
    if len(places) < 2:
        return ""
    first, *rest = sorted(set(places))
    return f"M{first[0]} {first[1]}" + "".join(f"H{x}V{y}" for x, y in rest)
