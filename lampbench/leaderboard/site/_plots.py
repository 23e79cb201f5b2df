"""The plots of a board: scores with intervals, score against cost with Pareto fronts, and users' changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lampbench.core import Metric
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._cells import count, number, score, seconds
from lampbench.leaderboard._compare import user_changes
from lampbench.leaderboard._overview import OverviewRow, Section
from lampbench.leaderboard.site._axes import Axis, Label, LogAxis, linear, logarithmic, place_labels
from lampbench.leaderboard.site._places import anchor, shortened
from lampbench.metrics import Estimate

# Narrow enough for a phone; wide screens have several side by side.
_WIDTH = 460
# What no eye tells apart any more is left to the table.
_MOST_DRAWN = 60
# Left and right end of the axis in plots of one line per entry, and where the first line is: the axis is above.
_LEFT, _RIGHT, _TOP = 158, 392, 40
_BINS = 20
_UNCHANGED = 1e-9
# What tables show as less than a millisecond is drawn at zero.
_INSTANT = 0.0005
_MEAN_RANK = "mean rank"


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
    """An entry's line, drawn from its top down; every other rank group is shaded (``band``)."""

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
class Measured:
    """What a cost plot draws of a method.

    Attributes:
        id: Of its row in the table above.
        cost: 0 if it does nothing that costs; None if that was not measured.
    """

    name: str
    id: str
    score: float
    interval: tuple[float, float] | None
    cost: float | None
    hardware: str


@dataclass(frozen=True)
class CostPoint:
    """A dot.

    Attributes:
        low, high: Pixels of the interval's ends; those of the score if it is not drawn.
        front: Whether no comparable one is better on one of score and cost, and as good on the other.
        label: Its name beside it; None if there is no room.
    """

    own: Measured
    x: float
    y: float
    low: float
    high: float
    front: bool
    label: Label | None


@dataclass(frozen=True)
class CostPlot:
    """Score against a cost; better is further up, cheaper further left.

    Attributes:
        key: For ids on the page.
        score: What the score is.
        good: Which end of it is good, in words.
        score_text, text: A score and a cost as text.
        fronts: Paths, one for each class of hardware that is compared by itself.
        left_out: Ranked ones without this measurement.
    """

    key: str
    score: str
    good: str
    score_text: Callable[[float | None], str]
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
    row_height: float
    axis: Axis
    most: int
    rows: tuple[UserRow, ...]
    left_out: int


def score_plot(board: Board) -> ScorePlot | None:
    """The best ranked entries; None if nothing is ranked."""
    primary, row_height, top = board.task.primary, 22, _TOP
    ranked = [(entry, entry.scores[primary.key][0]) for entry in board.entries if entry.rank is not None]
    known = [(entry, micro, micro.value) for entry, micro in ranked if micro.value is not None]
    if not known:
        return None
    drawn = known[:_MOST_DRAWN]
    axis = linear([end for _, micro, value in drawn for end in micro.ci95 or (value,)], _LEFT, _RIGHT, wanted=4)
    ranks = list(dict.fromkeys(entry.rank for entry, _, _ in drawn))
    rows = tuple(
        ScoreRow(entry, micro, top + row_height * place, ranks.index(entry.rank) % 2 == 0)
        for place, (entry, micro, _) in enumerate(drawn)
    )
    bottom = top + row_height * len(rows)
    baseline = next((axis.at(value) for entry, _, value in drawn if entry.name == board.baseline.entry), None)
    frame = Frame(_WIDTH, bottom + 6, _LEFT, _RIGHT, top, bottom)
    return ScorePlot(primary, frame, row_height, axis, rows, baseline, len(known) - len(drawn))


def cost_plots(board: Board) -> list[CostPlot]:
    """Score against trainable parameters per user, seconds per user and milliseconds per query."""
    metric, drawn = board.task.primary, [entry for entry in board.entries if entry.rank]
    few = len(drawn) <= _MOST_DRAWN

    def measured(cost_of: Callable[[Entry], float | None]) -> list[Measured]:
        found = [(entry, entry.scores[metric.key][0]) for entry in drawn]
        return [
            Measured(
                entry.name, anchor(entry), micro.value, micro.ci95 if few else None, cost_of(entry), entry.hardware
            )
            for entry, micro in found
            if micro.value is not None
        ]

    def plot(key: str, cost_of: Callable[[Entry], float | None]) -> CostPlot | None:
        return _cost_plot(key, metric.key, metric.higher_is_better, score, measured(cost_of))

    made = (
        plot("params", lambda e: float(e.user_parameters)),
        plot("seconds", lambda e: _adapting(e.seconds_per_user, e.user_parameters)),
        plot("query", lambda e: e.query_ms),
    )
    return [own for own in made if own]


def overview_plots(section: Section) -> list[CostPlot]:
    """Mean rank against the same costs, of what every board of the section ranks."""
    rows = [(row, row.mean_rank) for row in section.rows if row.complete]

    def plot(key: str, cost_of: Callable[[OverviewRow], float | None]) -> CostPlot | None:
        own = [Measured(row.name, "", rank, None, cost_of(row), row.hardware) for row, rank in rows if rank is not None]
        return _cost_plot(key, _MEAN_RANK, False, mean_rank, own)

    made = (
        plot("params", lambda row: row.user_parameters),
        plot("seconds", lambda row: _adapting(row.seconds_per_user, row.user_parameters)),
        plot("query", lambda row: row.query_ms),
    )
    return [own for own in made if own] if len(rows) > 1 else []


def mean_rank(value: float | None) -> str:
    """A mean of ranks as text."""
    return number(value, ".1f")


def user_plot(board: Board) -> UserPlot | None:
    """The best ranked entries; None if there is no zero-shot, or users have no score of their own."""
    primary, row_height, top = board.task.primary, 34, _TOP
    base = next((entry for entry in board.entries if entry.name == board.baseline.entry), None)
    others = [entry for entry in board.entries if entry.rank is not None and entry.gain is not None]
    if base is None or not others or not base.results[0].sums[primary.key].per_user:
        return None
    drawn = [(entry, user_changes(entry.results, base.results, primary)) for entry in others[:_MOST_DRAWN]]
    changes = [(entry, values[np.isfinite(values)]) for entry, values in drawn]
    widest = max((float(np.abs(values).max()) for _, values in changes if len(values)), default=0.0) or 1.0
    axis = linear([-widest, widest], _LEFT, _RIGHT, wanted=4)
    # Users who are unchanged are counted apart, or one bar would dwarf all others.
    counts = [np.histogram(values[np.abs(values) > _UNCHANGED], bins=_edges(axis))[0] for _, values in changes]
    most = max(int(own.max()) for own in counts) or 1
    scale = (row_height - 8) / most
    rows = tuple(
        _user_row(entry, values, own, top + row_height * place, row_height, axis, scale)
        for place, ((entry, values), own) in enumerate(zip(changes, counts, strict=True))
    )
    bottom = top + row_height * len(rows)
    frame = Frame(_WIDTH, bottom + 6, _LEFT, _RIGHT, top, bottom)
    return UserPlot(primary, frame, row_height, axis, most, rows, len(others) - len(drawn))


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


# Key -> what the cost is, its text, and whether it is compared on one class of hardware only.
_COSTS: dict[str, tuple[str, Callable[[float | None], str], bool]] = {
    "params": ("trainable parameters per user", count, False),
    "seconds": ("seconds to adapt to a user", seconds, True),
    "query": ("milliseconds per query", lambda value: number(value, ",.1f"), True),
}


def _adapting(seconds_per_user: float | None, parameters: float) -> float | None:
    """Seconds to adapt to a user: none if there is nothing to train and nothing else that is done per user."""
    return 0.0 if seconds_per_user is None and not parameters else seconds_per_user


def _cost_plot(
    key: str, title: str, higher: bool, score_text: Callable[[float | None], str], measured: Sequence[Measured]
) -> CostPlot | None:
    cost, text, by_hardware = _COSTS[key]
    frame = Frame(_WIDTH, 330, 58, 442, 12, 282)
    known = [(own, own.cost) for own in measured if own.cost is not None]
    if not known:
        return None
    ends = [own.interval or (own.score, own.score) for own, _ in known]
    drawn = [0.0 if key == "seconds" and value < _INSTANT else value for _, value in known]
    x = logarithmic(drawn, frame.left + 12, frame.right - 12)
    low, high = (frame.bottom, frame.top) if higher else (frame.top, frame.bottom)
    y = linear([end for own in ends for end in own], low, high)
    if title == _MEAN_RANK:
        y = replace(y, ticks=tuple(tick for tick in y.ticks if float(tick.text) >= 1))  # no rank is less
    classes = [own.hardware if by_hardware else "" for own, _ in known]
    sign = 1 if higher else -1
    front = _fronts([(sign * own.score, value) for own, value in known], classes)
    places = [(x.at(value), y.at(own.score)) for (own, _), value in zip(known, drawn, strict=True)]
    names = [shortened(own.name, 22) for own, _ in known]
    labels = place_labels(names, places, front, (frame.left, frame.top - 8, frame.width, frame.bottom))
    points = tuple(
        CostPoint(own, *at, y.at(end[0]), y.at(end[1]), marked, label)
        for (own, _), at, end, marked, label in zip(known, places, ends, front, labels, strict=True)
    )
    lines = tuple(
        _steps([place for place, own, marked in zip(places, classes, front, strict=True) if marked and own == name])
        for name in dict.fromkeys(classes)
    )
    good = "higher is better" if higher else "lower is better"
    left_out = len(measured) - len(known)
    return CostPlot(
        key, title, good, score_text, cost, text, frame, x, y, points, lines, by_hardware, left_out
    )  # fmt: skip


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
    # At one cost, the lowest first: two at zero may cost a little after all.
    first, *rest = sorted(set(places), key=lambda place: (place[0], -place[1]))
    return f"M{first[0]} {first[1]}" + "".join(f"H{x}V{y}" for x, y in rest)


def _edges(axis: Axis) -> Any:
    return np.linspace(axis.low, axis.high, 2 * _BINS + 1)


def _user_row(entry: Entry, values: Any, counts: Any, y: float, height: float, axis: Axis, scale: float) -> UserRow:
    ends = [axis.at(float(edge)) for edge in _edges(axis)]
    bars = [_bar(int(n), left, right, height, scale) for n, left, right in zip(counts, ends, ends[1:], strict=False)]
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
    """A bar that stands on ``y`` below its row's top, as a path; nothing if it counts nobody."""
    if not users:
        return ""
    height = round(max(1.5, scale * users), 1)
    return f"M{left + 0.5:.1f} {y}v-{height}h{right - left - 1:.1f}v{height}z"
