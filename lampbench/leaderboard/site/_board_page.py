"""A board's page: facts, the table, the plots."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from lampbench.leaderboard._columns import table_columns
from lampbench.leaderboard.site._places import Fact, Place, facts
from lampbench.leaderboard.site._plots import cost_plots, score_plot, user_plot


def board_page(place: Place) -> dict[str, Any]:
    """What the template of a board's page shows."""
    board = place.board
    columns = table_columns(board.task)
    return {
        "place": place,
        "board": board,
        "facts": _facts(place),
        "columns": columns,
        "groups": [(title, len(list(own))) for title, own in groupby(columns, key=lambda column: column.group)],
        "ranked": [entry for entry in board.entries if entry.rank is not None],
        "unranked": [entry for entry in board.entries if entry.rank is None],
        "scores": score_plot(board),
        "costs": cost_plots(board),
        "users": user_plot(board),
    }


def _facts(place: Place) -> tuple[Fact, ...]:
    board, identity = place.board, place.board.base.identity
    backbone = identity.backbone
    values = {
        "task": f"{board.task.name}, version {identity.task_version}",
        "users": f"{board.users:,}" + (f" (the first {board.limit:,})" if board.limit else ""),
        "queries": f"{board.queries:,}",
        "protocol": board.protocol,
        "backbone": backbone and backbone.id,
        "revision": backbone and backbone.revision,
        "dtype": backbone and backbone.dtype,
        "decoding": board.decoding,
        "protocol hash": board.protocol_hash,
        "prompt hash": identity.prompt_hash,
    }
    return facts(values, code=("protocol hash", "prompt hash", "revision"))
