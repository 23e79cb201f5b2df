"""Boards as LaTeX tables for a paper: booktabs, intervals, and bold by rank group."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from lampbench.core import Metric
from lampbench.data import SYNTHETIC
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._cells import count, seconds
from lampbench.leaderboard._overview import limit_name, model_name

_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip
_ABSENT = "--"


def latex_tables(boards: Sequence[Board]) -> dict[PurePosixPath, str]:
    """Path -> text: a file per protocol and task, with a table per board.

    The tables need the package booktabs, and a comment in each file says so.
    """
    groups: dict[PurePosixPath, list[Board]] = defaultdict(list)
    for board in boards:
        groups[PurePosixPath(board.protocol, f"{board.task.name}.tex")].append(board)
    head = "% Needs \\usepackage{booktabs}.\n"
    texts = {path: [_table(board, place) for place, board in enumerate(own)] for path, own in groups.items()}
    return {path: head + "\n".join(own) for path, own in texts.items()}


def _table(board: Board, place: int) -> str:
    metrics = board.task.metrics
    columns = ["Method", *(f"{_escaped(own.key)} {_arrow(own)}" for own in metrics), "Parameters/user", "s/user"]
    # Several models have a table each in the same file.
    label = re.sub(r"[^a-z0-9]+", "-", f"{board.protocol}-{board.task.name}{f'-{place + 1}' if place else ''}".lower())
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{_caption(board)}}}",
        rf"\label{{tab:lampbench-{label}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        r"\toprule",
        " & ".join(columns) + r" \\",
        r"\midrule",
        *(_row(entry, metrics, board.task.primary) for entry in board.entries),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(entry: Entry, metrics: Sequence[Metric], primary: Metric) -> str:
    mark = "" if entry.rank is not None else r"$^{\ast}$"
    cells = [_escaped(entry.name) + mark]
    for metric in metrics:
        value = entry.scores[metric.key][0]
        text = _ABSENT if value.value is None else f"{value.value:.3f}"
        # Only the primary metric was tested for ranks.
        if metric == primary and entry.rank == 1:
            text = rf"\textbf{{{text}}}"
        spread = "" if value.ci95 is None else rf" {{\scriptsize [{value.ci95[0]:.3f}, {value.ci95[1]:.3f}]}}"
        cells.append(text + spread)
    adapted = entry.seconds_per_user
    time = _ABSENT if adapted is None else seconds(adapted).replace("<", "$<$")
    cells += [count(entry.user_parameters), time]
    return " & ".join(cells) + r" \\"


def _caption(board: Board) -> str:
    label = f"{_escaped(board.label)}: {SYNTHETIC}. " if board.label else ""
    names = f"{_escaped(board.task.name)} under {_escaped(board.protocol)}, {_escaped(model_name(board))}"
    users = f"{board.users} users, {board.queries} queries{_escaped(limit_name(board))}"
    text = (
        f"{label}{names}: {users}. In brackets, 95\\% intervals from a bootstrap over users. Bold: rank 1 in "
        f"{_escaped(board.task.primary.key)}, which holds every method that cannot be told apart from the best "
        "(5\\% for all pairs of methods together)."
    )
    return text + (r" $^{\ast}$: not ranked." if any(entry.rank is None for entry in board.entries) else "")


def _arrow(metric: Metric) -> str:
    return r"$\uparrow$" if metric.higher_is_better else r"$\downarrow$"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
