"""Boards as Markdown, CSV, JSON and LaTeX; the same results give the same bytes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal

from tabulate import tabulate

from lampbench.core import Task, write_json
from lampbench.data import SYNTHETIC
from lampbench.leaderboard._added import AddedScore
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._cells import ABSENT, count, number, score, seconds, share
from lampbench.leaderboard._columns import Added, columns, meanings, table_columns
from lampbench.leaderboard._overview import OverviewRow, Section, limit_name, model_name, sections
from lampbench.leaderboard._results import no_collection

Format = Literal["md", "csv", "json", "tex"]
_NOTE = f"Absent is {ABSENT}. What the columns say: [Leaderboards](../README.md#columns)."


@no_collection()
def write_boards(boards: Sequence[Board], root: Path, formats: Sequence[Format] = ("md", "csv", "json")) -> list[Path]:
    """Write every board and the overview below ``root``; the files, in order."""
    written = []
    for path, group in _files(boards):
        values = [board_json(board) for board in group]
        for kind in formats:
            target = root / f"{path}.{kind}"
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, kind, group, values)
            written.append(target)
    overview = root / "README.md"
    overview.write_text(_overview(boards), encoding="utf-8")
    return [*written, overview]


def boards_json(boards: Iterable[Board]) -> str:
    """Boards as one JSON text."""
    return json.dumps([board_json(board) for board in boards], indent=1, allow_nan=False) + "\n"


def boards_csv(boards: Iterable[Board]) -> str:
    """Boards as one CSV text, a line per entry."""
    return _csv([board_json(board) for board in boards])


def board_json(board: Board) -> dict[str, Any]:
    """A board as JSON values, nothing rounded; null is "not measured" or not a finite number."""
    return {
        "task": board.task.name,
        "task_version": board.task.version,
        "protocol": board.protocol,
        "protocol_hash": board.protocol_hash,
        "limit": board.limit,
        "backbone": board.backbone,
        "decoding": board.decoding,
        "label": board.label,
        "users": board.users,
        "queries": board.queries,
        "references": {
            "gain": _plain(board.baseline),
            "gain_adapted": _plain(board.baselines[1]),
            "saved": _plain(board.saving),
        },
        "metrics": [{"key": own.key, "higher_is_better": own.higher_is_better} for own in board.task.metrics],
        "entries": [_entry_json(board, entry) for entry in board.entries],
    }


def _entry_json(board: Board, entry: Entry) -> dict[str, Any]:
    value: dict[str, Any] = {"name": entry.name, "method": entry.method}
    for column in columns(board.task, board.added):
        if column.path:
            *parents, last = column.path
            place = value
            for key in parents:
                place = place.setdefault(key, {})
            place[last] = _plain(column.value(entry))
    return value


def _plain(value: Any) -> Any:
    """Records as dicts, and None for numbers that are not finite."""
    if isinstance(value, AddedScore):
        return {name: _plain(getattr(value, name)) for name in ("value", "ci95", "macro")}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(inner) for inner in value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _files(boards: Sequence[Board]) -> Iterator[tuple[PurePosixPath, list[Board]]]:
    """One file per protocol and task, which holds every board of theirs."""
    groups: dict[PurePosixPath, list[Board]] = defaultdict(list)
    for board in boards:
        groups[PurePosixPath(board.protocol, board.task.name)].append(board)
    yield from groups.items()


def _write(target: Path, kind: Format, boards: Sequence[Board], values: Sequence[Mapping[str, Any]]) -> None:
    if kind == "json":
        write_json(target, values)
    elif kind == "csv":
        target.write_text(_csv(values), encoding="utf-8", newline="")
    elif kind == "md":
        target.write_text(_markdown(boards), encoding="utf-8")
    else:
        target.write_text("\n\n".join(_title(b) + "\n" + _latex_table(b) for b in boards) + "\n", encoding="utf-8")


def _markdown(boards: Sequence[Board]) -> str:
    parts = [f"# {boards[0].task.name} under {boards[0].protocol}", boards[0].task.about.capitalize() + "."]
    if boards[0].label:
        parts.append(f"**{boards[0].label}**: {SYNTHETIC}.")
    for board in boards:
        parts += [f"## {_title(board)}", _markdown_table(*_table(board))]
        parts.append(references(board))
        parts += [f"Not ranked: {entry.name}: {entry.unranked}." for entry in board.entries if entry.unranked]
        parts += length_notes(board)
    return "\n\n".join([*parts, _NOTE]) + "\n"


def length_notes(board: Board) -> list[str]:
    """What of prompts and answers did not fit, entry by entry; nothing of entries in which all fitted."""
    found = []
    for entry in board.entries:
        if entry.length("prompt_mean") is None:
            continue
        told = (
            (entry.cut("cut_contexts"), share, "of prompts had their context cut"),
            (entry.cut("cut_sources"), share, "of prompts had their text cut"),
            (entry.length("at_limit"), share, "of answers ended at the token limit"),
            (entry.length("unfinished_thoughts"), count, "answers are empty because a thought did not end"),
        )
        parts = [f"{form(value)} {what}" for value, form, what in told if value]
        if parts:
            found.append(f"{entry.name}: {'; '.join(parts)}.")
    return found


def references(board: Board) -> str:
    """What gains and savings of a board are against, in words."""
    found = [own.entry for own in board.baselines if own.entry]
    said = [f"Gains are over the {'entry' if len(found) == 1 else 'entries'} {' and '.join(found)}."] if found else []
    said += [f"No gains against {own.method} are given: {own.why}." for own in board.baselines if not own.entry]
    saving = board.saving
    what = "Parameters and time are saved against"
    said.append(f"{what} {saving.entry}." if saving.entry else f"{what} nothing here: {saving.why}.")
    return " ".join(said)


def _title(board: Board) -> str:
    users = f"{board.users} users, {board.queries} queries{limit_name(board)}"
    return f"{model_name(board)}: {users}, protocol {board.protocol_hash[:12]}"


def _table(board: Board) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a board's table."""
    shown = table_columns(board.task, board.added)
    rows = [[str(column.show(entry)) for column in shown] for entry in board.entries]
    return [column.title for column in shown], rows


def _latex_table(board: Board) -> str:
    headers, rows = _table(board)
    return tabulate(rows, headers=headers, tablefmt="latex_booktabs", disable_numparse=True)


def _markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(header) + 2, *map(len, cells)) for header, *cells in zip(headers, *rows, strict=True)]
    lines = [" | ".join(map(str.ljust, cells, widths)) for cells in (headers, *rows)]
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def _csv(boards: Sequence[Mapping[str, Any]]) -> str:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for board in boards:
        facts = {key: value for key, value in board.items() if key not in ("metrics", "entries", "references")}
        rows += [
            {**facts, **entry, "runs": " ".join(run["run_id"] for run in entry["runs"])} for entry in board["entries"]
        ]
    # Halves of surrogate pairs, which JSON may hold, are no text to the strings of pandas.
    for row in rows:
        texts = {key: value for key, value in row.items() if isinstance(value, str)}
        row |= {key: value.encode("utf-8", "replace").decode() for key, value in texts.items()}
    return pd.json_normalize(rows).to_csv(index=False, lineterminator="\n")


def _overview(boards: Sequence[Board]) -> str:
    """Every protocol and backbone: methods by tasks, the primary metric, with what beats zero-shot."""
    parts = ["# Leaderboards", "Made by `lampbench leaderboard build` from `results/`; not to be edited."]
    for section in sections(boards):
        label = f" ({section.label})" if section.label and section.label != section.title else ""
        parts.append(f"## {section.title}{label}: {section.model}")
        if section.label:
            parts.append(f"{SYNTHETIC[0].upper()}{SYNTHETIC[1:]}.")
        headers = [f"[{b.task.name}]({b.protocol}/{b.task.name}.md) {b.task.primary.key}" for b in section.boards]
        headers = ["method", "mean rank", "params/user", "s/user", "ms/query", *headers]
        parts.append(_markdown_table(headers, [_overview_cells(section, row) for row in section.rows]))
    parts.append(
        "Mean rank: of the rank groups, over the tasks; with fewer tasks than the others, in brackets how many. "
        "Costs: the mean over the tasks. Bold: better than zero-shot, p < 0.05 by Holm over the tasks of the row."
    )
    if boards:
        parts += ["## Columns", f"What the columns of the boards say; absent is {ABSENT}."]
        added = {key: score for board in boards for key, score in board.added.items()}
        parts.append(column_list((board.task for board in boards), added))
    return "\n\n".join(parts) + "\n"


def _overview_cells(section: Section, row: OverviewRow) -> list[str]:
    some = "" if row.complete else f" ({len(row.ranks)})"
    costs = (count(row.user_parameters), seconds(row.seconds_per_user), number(row.query_ms, ",.1f"))
    cells = [row.name, f"{number(row.mean_rank, '.1f')}{some}", *costs]
    for place, (board, entry) in enumerate(zip(section.boards, row.entries, strict=True)):
        text = score(entry.scores[board.task.primary.key][0].value) if entry else ABSENT
        cells.append(f"**{text}**" if place in row.better else text)
    return cells


def column_list(tasks: Iterable[Task], added: Added = MappingProxyType({})) -> str:
    """What the columns of these tasks' boards say, and of metrics that rescoring added, as a Markdown list."""
    said = meanings(tasks, added).items()
    return "\n".join(f"* {', '.join(f'`{title}`' for title in titles)}: {meaning}" for titles, meaning in said)
