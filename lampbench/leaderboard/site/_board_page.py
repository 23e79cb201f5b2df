"""A board's page: facts, the table, the plots."""

from __future__ import annotations

from dataclasses import dataclass

from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard.site._columns import Cell, Column, ColumnGroup, columns, groups
from lampbench.leaderboard.site._places import BoardPlace, anchor, method_path, run_path
from lampbench.leaderboard.site._plot_costs import CostPlot, parameters_plot, seconds_plot
from lampbench.leaderboard.site._plot_scores import ScorePlot, score_plot
from lampbench.leaderboard.site._plot_users import UserPlot, user_plot
from lampbench.leaderboard.site._sheets import Fact, facts

_CODE = frozenset({"protocol hash", "prompt hash", "revision"})


@dataclass(frozen=True)
class RunLink:
    """One seed's run."""

    seed: str
    path: str


@dataclass(frozen=True)
class TableRow:
    """An entry's cells with its links.

    Attributes:
        cells: A cell a column.
        reason: Why it is not ranked; empty for ranked ones.
    """

    anchor: str
    method_path: str
    cells: tuple[Cell, ...]
    runs: tuple[RunLink, ...]
    reason: str


@dataclass(frozen=True)
class BoardView:
    """What a board's page shows."""

    place: BoardPlace
    facts: tuple[Fact, ...]
    columns: tuple[Column, ...]
    groups: tuple[ColumnGroup, ...]
    ranked: tuple[TableRow, ...]
    unranked: tuple[TableRow, ...]
    scores: ScorePlot | None
    costs: tuple[CostPlot, ...]
    users: UserPlot | None


def board_view(place: BoardPlace) -> BoardView:
    """The page of a board."""
    board = place.board
    shown = columns(board)
    rows = [_row(entry, shown) for entry in board.entries]
    costs = [plot for plot in (parameters_plot(board), seconds_plot(board)) if plot]
    return BoardView(
        place=place,
        facts=_facts(place),
        columns=shown,
        groups=tuple(groups(shown)),
        ranked=tuple(row for row in rows if not row.reason),
        unranked=tuple(row for row in rows if row.reason),
        scores=score_plot(board),
        costs=tuple(costs),
        users=user_plot(board),
    )


def _row(entry: Entry, shown: tuple[Column, ...]) -> TableRow:
    return TableRow(
        anchor=anchor(entry),
        method_path=method_path(entry.method),
        cells=tuple(column.cell(entry) for column in shown),
        runs=tuple(RunLink(str(result.identity.seed), run_path(result)) for result in entry.results),
        reason="" if entry.rank is not None else entry.unranked or "no score",
    )


def _facts(place: BoardPlace) -> tuple[Fact, ...]:
    board, identity = place.board, place.base.identity
    backbone = identity.backbone
    return facts(
        [
            ("task", f"{board.task.name}, version {identity.task_version}"),
            ("users", f"{board.users:,}{_limit(board)}"),
            ("queries", f"{board.queries:,}"),
            ("protocol", board.protocol),
            ("backbone", board.backbone),
            ("revision", backbone and backbone.revision),
            ("dtype", backbone and backbone.dtype),
            ("decoding", board.decoding),
            ("protocol hash", board.protocol_hash),
            ("prompt hash", identity.prompt_hash),
        ],
        _CODE,
    )


def _limit(board: Board) -> str:
    return f" (the first {board.limit:,})" if board.limit else ""
