"""The plots of a board: scores with intervals, score against cost with Pareto fronts, and users' changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampbench.core import Metric
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._columns import count, seconds
from lampbench.leaderboard._compare import user_changes
from lampbench.leaderboard.site._axes import Axis, Label, LogAxis, linear, logarithmic, place_labels
from lampbench.leaderboard.site._places import shortened
from lampbench.metrics import Estimate

_WIDTH = 760
# What no eye tells apart any more is left to the table.
_MOST_DRAWN = 60
# Left and right end of the axis in plots of one line per entry.
_LEFT, _RIGHT = 236, 596
_BINS = 20
_UNCHANGED = 1e-9


@dataclass(frozen=True)
class Frame:
    """What a plot is drawn in, in pixels."""

    width: int
    height: float
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class ScoreRow:
    """An entry's line; every other rank group is shaded (``band``)."""

    entry: Entry
    micro: Estimate
    y: float
    band: bool


@dataclass(frozen=True)
class ScorePlot:
    """A dot per entry with its 95% interval, rank groups apart.

    Attributes:
        baseline: The pixel of zero-shot's score; None if the board has none.
        left_out: Ranked entries that are not drawn.
    """

    metric: Metric
    frame: Frame
    row_height: float
    axis: Axis
    rows: tuple[ScoreRow, ...]
    baseline: float | None
    left_out: int


@dataclass(frozen=True)
class CostPoint:
    """An entry's dot.

    Attributes:
        low, high: Pixels of the interval's ends; those of the score if it is not drawn.
        front: Whether no comparable entry is better on one of score and cost, and as good on the other.
        label: Its name beside it; None if there is no room.
    """

    entry: Entry
    score: float
    cost: float
    x: float
    y: float
    low: float
    high: float
    front: bool
    label: Label | None


@dataclass(frozen=True)
class CostPlot:
    """Score against a cost.

    Attributes:
        key: For ids on the page.
        text: A cost as text.
        fronts: Paths, one for each class of hardware that is compared by itself.
        left_out: Ranked entries without this measurement.
    """

    key: str
    metric: Metric
    cost: str
    text: Callable[[float | None], str]
    frame: Frame
    x: LogAxis
    y: Axis
    points: tuple[CostPoint, ...]
    fronts: tuple[str, ...]
    by_hardware: bool
    left_out: int


@dataclass(frozen=True)
class UserRow:
    """An entry's line.

    Attributes:
        worse, better: Bars as paths.
        quantiles: Smallest, 10%, median, 90% and largest change; positive is better.
    """

    entry: Entry
    y: float
    worse: str
    better: str
    hurt: int
    unchanged: int
    helped: int
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class UserPlot:
    """How each user's own score changes against zero-shot, one line per entry.

    Attributes:
        most: How many users the highest bar stands for.
        left_out: Entries that are not drawn.
    """

    metric: Metric
    frame: Frame
    axis: Axis
    most: int
    rows: tuple[UserRow, ...]
    left_out: int


def score_plot(board: Board) -> ScorePlot | None:
    """The best ranked entries; None if nothing is ranked."""
    primary, row_height, top = board.task.primary, 20, 8
    ranked = [(entry, entry.scores[primary.key][0]) for entry in board.entries if entry.rank is not None]
    known = [(entry, micro, micro.value) for entry, micro in ranked if micro.value is not None]
    if not known:
        return None
    drawn = known[:_MOST_DRAWN]
    axis = linear([end for _, micro, value in drawn for end in micro.ci95 or (value,)], _LEFT, _RIGHT)
    ranks = list(dict.fromkeys(entry.rank for entry, _, _ in drawn))
    rows = tuple(
        ScoreRow(entry, micro, top + row_height * (place + 0.5), ranks.index(entry.rank) % 2 == 0)
        for place, (entry, micro, _) in enumerate(drawn)
    )
    bottom = top + row_height * len(rows)
    baseline = next((axis.at(value) for entry, _, value in drawn if entry.name == board.baseline.entry), None)
    frame = Frame(_WIDTH, bottom + 40, _LEFT, _RIGHT, top, bottom)
    return ScorePlot(primary, frame, row_height, axis, rows, baseline, len(known) - len(drawn))


def cost_plots(board: Board) -> list[CostPlot]:
    """Score against trainable parameters and seconds per user; time is compared on the same hardware only."""
    plots = (
        _cost_plot(board, "params", "trainable parameters per user", lambda e: float(e.user_parameters), count, False),
        _cost_plot(board, "seconds", "seconds per user", lambda e: e.seconds_per_user, seconds, True),
    )
    return [plot for plot in plots if plot]


def user_plot(board: Board) -> UserPlot | None:
    """The best ranked entries; None if there is no zero-shot, or users have no score of their own."""
    primary, row_height, top = board.task.primary, 34, 10
    base = next((entry for entry in board.entries if entry.name == board.baseline.entry), None)
    others = [entry for entry in board.entries if entry.rank is not None and entry.gain is not None]
    if base is None or not others or not base.results[0].sums[primary.key].per_user:
        return None
    drawn = [(entry, user_changes(entry.results, base.results, primary)) for entry in others[:_MOST_DRAWN]]
    changes = [(entry, values[np.isfinite(values)]) for entry, values in drawn]
    widest = max((float(np.abs(values).max()) for _, values in changes if len(values)), default=0.0) or 1.0
    axis = linear([-widest, widest], _LEFT, _RIGHT)
    # Users who are unchanged are counted apart, or one bar would dwarf all others.
    counts = [np.histogram(values[np.abs(values) > _UNCHANGED], bins=_edges(axis))[0] for _, values in changes]
    most = max(int(own.max()) for own in counts) or 1
    scale = (row_height - 8) / most
    rows = tuple(
        _user_row(entry, values, own, top + row_height * place, axis, scale)
        for place, ((entry, values), own) in enumerate(zip(changes, counts, strict=True), start=1)
    )
    bottom = top + row_height * len(rows)
    frame = Frame(_WIDTH, bottom + 40, _LEFT, _RIGHT, top, bottom)
    return UserPlot(primary, frame, axis, most, rows, len(others) - len(drawn))


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (score, cost), whether no other is as good on both and better on one; a higher score is better."""
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    front = [False] * len(points)
    best: tuple[float, float] | None = None
    for i in order:
        score, cost = points[i]
        # Sorted by cost: only a better score than everything cheaper counts, or the very same two numbers.
        if best is None or score > best[0] or (score, cost) == best:
            front[i], best = True, (score, cost)
    return front


def _cost_plot(
    board: Board,
    key: str,
    title: str,
    cost_of: Callable[[Entry], float | None],
    text: Callable[[float | None], str],
    by_hardware: bool,
) -> CostPlot | None:
    primary, frame = board.task.primary, Frame(_WIDTH, 380, 64, 736, 16, 322)
    ranked = [(entry, entry.scores[primary.key][0].value, cost_of(entry)) for entry in board.entries if entry.rank]
    known = [(entry, score, cost) for entry, score, cost in ranked if score is not None and cost is not None]
    if not known:
        return None
    few = len(known) <= _MOST_DRAWN
    ends = [(few and entry.scores[primary.key][0].ci95) or (score, score) for entry, score, _ in known]
    x = logarithmic([cost for _, _, cost in known], frame.left + 16, frame.right - 16)
    y = linear([end for own in ends for end in own], frame.bottom, frame.top)
    classes = [entry.hardware if by_hardware else "" for entry, _, _ in known]
    sign = 1 if primary.higher_is_better else -1
    front = _fronts([(sign * score, cost) for _, score, cost in known], classes)
    places = [(x.at(cost), y.at(score)) for _, score, cost in known]
    names = [shortened(entry.name, 28) for entry, _, _ in known]
    labels = place_labels(names, places, front, (frame.left, frame.top, frame.width, frame.bottom))
    points = tuple(
        CostPoint(*own, *at, y.at(end[0]), y.at(end[1]), marked, label)
        for own, at, end, marked, label in zip(known, places, ends, front, labels, strict=True)
    )
    lines = tuple(
        _steps([place for place, own, marked in zip(places, classes, front, strict=True) if marked and own == name])
        for name in dict.fromkeys(classes)
    )
    left_out = len(ranked) - len(known)
    return CostPlot(key, primary, title, text, frame, x, y, points, lines, by_hardware, left_out)


def _fronts(points: Sequence[tuple[float, float]], classes: Sequence[str]) -> list[bool]:
    """The Pareto front within every class."""
    front = [False] * len(points)
    for name in dict.fromkeys(classes):
        members = [i for i, own in enumerate(classes) if own == name]
        for i, marked in zip(members, pareto([points[i] for i in members]), strict=True):
            front[i] = marked
    return front


def _steps(places: Sequence[tuple[float, float]]) -> str:
    """A path that goes right, then up: between two points of a front nothing lies beyond the corner."""
    if len(places) < 2:
        return ""
    first, *rest = sorted(set(places))
    return f"M{first[0]} {first[1]}" + "".join(f"H{x}V{y}" for x, y in rest)


def _edges(axis: Axis) -> Any:
    return np.linspace(axis.low, axis.high, 2 * _BINS + 1)


def _user_row(entry: Entry, values: Any, counts: Any, y: float, axis: Axis, scale: float) -> UserRow:
    ends = [axis.at(float(edge)) for edge in _edges(axis)]
    bars = [_bar(int(n), left, right, y, scale) for n, left, right in zip(counts, ends, ends[1:], strict=False)]
    helped, hurt = int((values > _UNCHANGED).sum()), int((values < -_UNCHANGED).sum())
    quantiles = np.quantile(values, (0, 0.1, 0.5, 0.9, 1)) + 0.0 if len(values) else ()
    return UserRow(
        entry=entry,
        y=y,
        worse="".join(bars[:_BINS]),
        better="".join(bars[_BINS:]),
        hurt=hurt,
        unchanged=len(values) - helped - hurt,
        helped=helped,
        quantiles=tuple(map(float, quantiles)),
    )


def _bar(users: int, left: float, right: float, y: float, scale: float) -> str:
    """A bar that stands on ``y``, as a path; nothing if it counts nobody."""
    if not users:
        return ""
    height = round(max(1.5, scale * users), 1)
    return f"M{left + 0.5:.1f} {y}v-{height}h{right - left - 1:.1f}v{height}z"
