"""The plot of scores: a dot an entry with its 95% interval, rank groups apart."""

from __future__ import annotations

from dataclasses import dataclass

from lampbench.leaderboard._board import Board
from lampbench.leaderboard.site import _numbers as numbers
from lampbench.leaderboard.site._axes import Axis, linear
from lampbench.leaderboard.site._columns import direction

WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 760, 236, 596, 8, 20
# What no eye tells apart any more is left to the table.
MOST_DRAWN = 60


@dataclass(frozen=True)
class ScoreRow:
    """An entry's line.

    Attributes:
        label: The name, cut to fit.
        low, high: Pixels of the interval's ends; those of the score where there is none.
        band: Whether the line is shaded: every other rank group is.
    """

    name: str
    label: str
    rank: int
    y: float
    x: float
    low: float
    high: float
    score: str
    interval: str
    band: bool


@dataclass(frozen=True)
class ScorePlot:
    """Scores with their intervals.

    Attributes:
        baseline: The pixel of zero-shot's score; None where the board has none.
        left_out: Ranked entries that are not drawn.
    """

    metric: str
    good: str
    width: int
    height: float
    axis: Axis
    bottom: float
    rows: tuple[ScoreRow, ...]
    baseline: float | None
    left_out: int

    @property
    def top(self) -> float:
        """Where the lines begin."""
        return _TOP

    @property
    def row_height(self) -> float:
        """Of one line."""
        return _ROW


def score_plot(board: Board) -> ScorePlot | None:
    """The best ranked entries; None where nothing is ranked."""
    primary = board.task.primary
    known = [
        (entry, entry.rank, micro, micro.value)
        for entry in board.entries
        if entry.rank is not None and (micro := entry.scores[primary.key][0]).value is not None
    ]
    if not known:
        return None
    drawn = known[:MOST_DRAWN]
    axis = linear([end for _, _, micro, value in drawn for end in micro.ci95 or (value,)], _LEFT, _RIGHT)
    ranks = list(dict.fromkeys(rank for _, rank, _, _ in drawn))
    rows = tuple(
        ScoreRow(
            name=entry.name,
            label=numbers.shortened(entry.name, 32),
            rank=rank,
            y=_TOP + _ROW * (place + 0.5),
            x=axis.at(value),
            low=axis.at(micro.ci95[0] if micro.ci95 else value),
            high=axis.at(micro.ci95[1] if micro.ci95 else value),
            score=numbers.score(value),
            interval=numbers.interval(micro),
            band=ranks.index(rank) % 2 == 0,
        )
        for place, (entry, rank, micro, value) in enumerate(drawn)
    )
    bottom = _TOP + _ROW * len(rows)
    baseline = next((row.x for row, (entry, *_) in zip(rows, drawn, strict=True) if entry.method == "zero-shot"), None)
    return ScorePlot(
        primary.key, direction(primary), WIDTH, bottom + 40, axis, bottom, rows, baseline, len(known) - len(drawn)
    )
