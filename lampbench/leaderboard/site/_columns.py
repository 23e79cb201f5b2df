"""The columns of a board's table: what a cell says, and what it is sorted by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lampbench.core import Metric
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard.site import _numbers as numbers
from lampbench.leaderboard.site._numbers import ABSENT, LEVEL
from lampbench.metrics import Estimate

Order = Literal["ascending", "descending"]


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        detail: What stands smaller behind the text: an interval.
        sort: What the column is sorted by; None goes last whatever the order.
    """

    text: str
    detail: str = ""
    sort: float | str | None = None


@dataclass(frozen=True)
class Column:
    """A column of a board's table.

    Attributes:
        key: What it holds, a word for the page's own use.
        group: The heading above several columns.
        about: What the title does not say, such as the unit or which end is good.
        first: The order of the first click: best first.
        numeric: Whether it is sorted as numbers.
    """

    key: str
    group: str
    title: str
    about: str
    first: Order
    cell: Callable[[Entry], Cell]
    numeric: bool = True


@dataclass(frozen=True)
class ColumnGroup:
    """Columns that stand under one heading."""

    title: str
    span: int


def columns(board: Board) -> tuple[Column, ...]:
    """Every column of a board's table, from left to right."""
    return (
        Column("rank", "", "rank", "of its group", "ascending", lambda e: _plain(e.rank, str(e.rank or ABSENT))),
        Column("method", "", "method", "", "ascending", lambda e: Cell(e.name, sort=e.name.lower()), numeric=False),
        *_score_columns(board),
        *_gain_columns(board.task.primary),
        *_cost_columns(),
        *_run_columns(),
    )


def groups(shown: tuple[Column, ...]) -> list[ColumnGroup]:
    """The headings above the columns."""
    made: list[ColumnGroup] = []
    for column in shown:
        if made and made[-1].title == column.group:
            made[-1] = ColumnGroup(column.group, made[-1].span + 1)
        else:
            made.append(ColumnGroup(column.group, 1))
    return made


def direction(metric: Metric) -> str:
    """Which end of a metric is good, in words."""
    return "higher is better" if metric.higher_is_better else "lower is better"


def _score_columns(board: Board) -> list[Column]:
    group, primary = "score", board.task.primary
    shown = [_score_column(group, metric) for metric in board.task.metrics]
    over_users = Column(
        "over-users",
        group,
        f"{primary.key} over users",
        direction(primary),
        _best(primary),
        lambda e: _estimate(e.scores[primary.key][1]),
    )
    invalid = Column("invalid", group, "invalid", "share of answers", "ascending", lambda e: _share(e.invalid))
    return [*shown, over_users, invalid]


def _score_column(group: str, metric: Metric) -> Column:
    def cell(entry: Entry) -> Cell:
        return _estimate(entry.scores[metric.key][0])

    return Column(f"score-{metric.key}", group, metric.key, direction(metric), _best(metric), cell)


def _gain_columns(primary: Metric) -> list[Column]:
    group = "against zero-shot"
    return [
        Column("difference", group, primary.key, direction(primary), _best(primary), lambda e: _change(e, primary)),
        Column("p", group, "p", "Holm", "ascending", lambda e: _p(e.gain.p if e.gain else None)),
        Column("moved", group, "users helped/hurt", "", "descending", _moved),
        Column("swapped", group, "left with another's state", "share of the gain", "ascending", _swapped),
    ]


def _cost_columns() -> list[Column]:
    user, shared, query = "cost a user", "shared cost", "cost a query"
    return [
        Column("params", user, "params/user", "trainable", "ascending", lambda e: _count(e.user_parameters)),
        Column(
            "params-saved", user, "params saved", "of OPPU's", "descending", lambda e: _share(e.parameter_reduction)
        ),
        Column("bytes", user, "bytes/user", "", "ascending", lambda e: _count(e.user_bytes)),
        Column("seconds", user, "s/user", "", "ascending", lambda e: _seconds(e.seconds_per_user)),
        Column("time-saved", user, "time saved", "of OPPU's", "descending", lambda e: _share(e.time_reduction)),
        Column("shared-params", shared, "shared params", "", "ascending", lambda e: _count(e.shared_parameters)),
        Column("shared-seconds", shared, "shared s", "", "ascending", lambda e: _seconds(e.shared_seconds)),
        Column("ms", query, "ms/query", "", "ascending", lambda e: _number(e.query_ms, ",.1f")),
        Column("tokens", query, "tokens/query", "prompt", "ascending", lambda e: _count(e.query_tokens)),
        Column("peak", "memory", "peak MB", "", "ascending", lambda e: _count(e.peak_bytes and e.peak_bytes / 1e6)),
    ]


def _run_columns() -> list[Column]:
    group = "runs"
    return [
        Column("seeds", group, "seeds", "", "descending", lambda e: _plain(len(e.results), str(len(e.results)))),
        Column("hardware", group, "hardware", "", "ascending", lambda e: _text(e.hardware), numeric=False),
        Column("version", group, "version", "", "descending", lambda e: _text(_versions(e)), numeric=False),
        Column("date", group, "date", "finished", "descending", lambda e: _text(_date(e)), numeric=False),
    ]


def _best(metric: Metric) -> Order:
    return "descending" if metric.higher_is_better else "ascending"


def _versions(entry: Entry) -> str:
    return ", ".join(sorted({result.row.provenance.version for result in entry.results}))


def _date(entry: Entry) -> str:
    return max(str(result.row.provenance.finished)[:10] for result in entry.results)


def _estimate(estimate: Estimate | None) -> Cell:
    value = estimate.value if estimate else None
    return _plain(value, numbers.score(value), numbers.interval(estimate))


def _change(entry: Entry, primary: Metric) -> Cell:
    if entry.gain is None:
        return Cell(ABSENT)
    micro = entry.gain.differences[primary.key].micro
    return _plain(micro.value, numbers.number(micro.value, "+.4f"), numbers.interval(micro, "+"))


def _moved(entry: Entry) -> Cell:
    if entry.gain is None:
        return Cell(ABSENT)
    moved = entry.gain.moved
    return _plain(moved.helped - moved.hurt, f"{moved.helped}/{moved.hurt}")


def _swapped(entry: Entry) -> Cell:
    return _share(entry.gain.swapped if entry.gain and entry.gain.p < LEVEL else None)


def _p(value: float | None) -> Cell:
    return _plain(value, numbers.probability(value))


def _share(value: float | None) -> Cell:
    return _plain(value, numbers.share(value))


def _count(value: float | None) -> Cell:
    return _plain(value, numbers.count(value))


def _seconds(value: float | None) -> Cell:
    return _plain(value, numbers.seconds(value))


def _number(value: float | None, style: str) -> Cell:
    return _plain(value, numbers.number(value, style))


def _text(text: str) -> Cell:
    return Cell(text, sort=text.lower())


def _plain(value: float | None, text: str, detail: str = "") -> Cell:
    return Cell(text, detail, value)
