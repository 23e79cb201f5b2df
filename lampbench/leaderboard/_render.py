"""Boards as Markdown, CSV, JSON and LaTeX; the same results give the same bytes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tabulate import tabulate

from lampbench.core import write_json
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._results import no_collection
from lampbench.metrics import Estimate, holm

Format = Literal["md", "csv", "json", "tex"]
_EMPTY = "–"
_LEVEL = 0.05

# Column -> its cell as text. Numbers of the JSON and CSV files are not rounded.
_COLUMNS: Mapping[str, Callable[[Board, Entry], str]] = {
    "rank": lambda board, e: str(e.rank) if e.rank else "not ranked",
    "method": lambda board, e: e.name,
    "primary": lambda board, e: _score(board, e, 0),
    "secondary": lambda board, e: _score(board, e, 1),
    "over users": lambda board, e: _estimate(e.scores[board.task.primary.key][1]),
    "against zero-shot": lambda board, e: _difference(board, e),
    "users helped/hurt": lambda board, e: f"{e.gain.moved.helped}/{e.gain.moved.hurt}" if e.gain else _EMPTY,
    "left with another's state": lambda board, e: _share(e.gain.swapped if e.gain and e.gain.p < _LEVEL else None),
    "invalid": lambda board, e: _share(e.invalid),
    "shared params": lambda board, e: f"{e.shared_parameters:,}",
    "params/user": lambda board, e: f"{e.user_parameters:,}",
    "params saved": lambda board, e: _share(e.parameter_reduction),
    "bytes/user": lambda board, e: _number(e.user_bytes, ",.0f"),
    "s/user": lambda board, e: _number(e.seconds_per_user, ".3f"),
    "shared s": lambda board, e: _number(e.shared_seconds, ".1f"),
    "time saved": lambda board, e: _share(e.time_reduction),
    "ms/query": lambda board, e: _number(e.query_ms, ".1f"),
    "tokens/query": lambda board, e: _number(e.query_tokens, ".0f"),
    "peak MB": lambda board, e: _number(e.peak_bytes and e.peak_bytes / 1e6, ",.0f"),
    "seeds": lambda board, e: str(len(e.results)),
    "hardware": lambda board, e: e.hardware,
    "version": lambda board, e: ", ".join(sorted({r.row.provenance.version for r in e.results})),
    "date": lambda board, e: max(str(r.row.provenance.finished)[:10] for r in e.results),
}

_NOTE = """\
Scores over queries with 95% intervals from a bootstrap over users, seeds averaged; *over users*: the mean of users'
own scores. Entries of one rank cannot be told apart from the best of their group (permutation test over users, 5%).
*Against zero-shot*: the difference, p adjusted by Holm over the board. *Left with another's state*: of a significant
gain over zero-shot, when every user has the next user's state. *Saved*: against OPPU, of a user's trainable parameters,
and of a user's seconds where both ran on the same hardware. Absent is –.\
"""


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


def board_json(board: Board) -> dict[str, Any]:
    """A board as JSON values, nothing rounded; null is "not measured" or not a finite number."""
    value: dict[str, Any] = _finite(
        {
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
            "metrics": [{"key": m.key, "higher_is_better": m.higher_is_better} for m in board.task.metrics],
            "entries": [_entry_json(entry) for entry in board.entries],
        }
    )
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_finite(inner) for inner in value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "method": entry.method,
        "rank": entry.rank,
        "unranked": entry.unranked,
        "scores": {
            key: {"micro": asdict(micro), "macro": asdict(macro) if macro else None}
            for key, (micro, macro) in entry.scores.items()
        },
        "against_zero_shot": None if entry.gain is None else asdict(entry.gain),
        "invalid": entry.invalid,
        "cost": {
            "shared_parameters": entry.shared_parameters,
            "user_parameters": entry.user_parameters,
            "parameter_reduction": entry.parameter_reduction,
            "user_bytes": entry.user_bytes,
            "seconds_per_user": entry.seconds_per_user,
            "shared_seconds": entry.shared_seconds,
            "time_reduction": entry.time_reduction,
            "ms_per_query": entry.query_ms,
            "tokens_per_query": entry.query_tokens,
            "peak_bytes": entry.peak_bytes,
        },
        "hardware": entry.hardware,
        "runs": [{"run_id": r.row.run_id, "seed": r.identity.seed} for r in entry.results],
    }


def _files(boards: Sequence[Board]) -> Iterator[tuple[PurePosixPath, list[Board]]]:
    """One file a protocol and task, which holds every board of theirs."""
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
        target.write_text("\n\n".join(_title(b) + "\n" + _latex_table(b) for b in boards) + "\n")


def _markdown(boards: Sequence[Board]) -> str:
    parts = [f"# {boards[0].task.name} under {boards[0].protocol}", boards[0].task.about.capitalize() + "."]
    if boards[0].label:
        parts.append(f"**{boards[0].label}**: invented users; these scores compare with no score on LaMP.")
    for board in boards:
        parts += [f"## {_title(board)}", _markdown_table(list(_COLUMNS), _cells(board))]
        parts += [f"Not ranked: {entry.name}: {entry.unranked}." for entry in board.entries if entry.unranked]
    return "\n\n".join([*parts, _NOTE]) + "\n"


def _title(board: Board) -> str:
    limit = f", first {board.limit} users" if board.limit else ""
    model = f"{board.backbone}, {board.decoding} decoding" if board.backbone else "no language model"
    return f"{model}: {board.users} users, {board.queries} queries{limit}, protocol {board.protocol_hash[:12]}"


def _cells(board: Board) -> list[list[str]]:
    return [[cell(board, entry) for cell in _COLUMNS.values()] for entry in board.entries]


def _latex_table(board: Board) -> str:
    return tabulate(_cells(board), headers=list(_COLUMNS), tablefmt="latex_booktabs", disable_numparse=True)


def _markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(header) + 2, *map(len, cells)) for header, *cells in zip(headers, *rows, strict=True)]
    lines = [" | ".join(map(str.ljust, cells, widths)) for cells in (headers, *rows)]
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def _csv(boards: Sequence[Mapping[str, Any]]) -> str:
    import pandas as pd

    rows = []
    for board in boards:
        facts = {key: value for key, value in board.items() if key not in ("metrics", "entries")}
        rows += [
            {**facts, **entry, "runs": " ".join(run["run_id"] for run in entry["runs"])} for entry in board["entries"]
        ]
    return pd.json_normalize(rows).to_csv(index=False, lineterminator="\n")


def _overview(boards: Sequence[Board]) -> str:
    """Every protocol and backbone: methods by tasks, the primary metric, with what beats zero-shot."""
    parts = ["# Leaderboards", "Made by `lampbench leaderboard build` from `results/`; not to be edited."]
    groups: dict[tuple[str, str | None, str | None, int | None], list[Board]] = defaultdict(list)
    for board in boards:
        groups[board.protocol, board.backbone, board.decoding, board.limit].append(board)
    for (protocol, backbone, _, limit), own in groups.items():
        label = f" ({own[0].label})" if own[0].label and own[0].label != protocol else ""
        first = f", first {limit} users" if limit else ""
        parts.append(f"## {protocol}{label}: {backbone or 'no language model'}{first}")
        if own[0].label:
            parts.append("Invented users; these scores compare with no score on LaMP.")
        parts.append(_overview_table(own))
    return "\n\n".join([*parts, "Bold: better than zero-shot, p < 0.05 by Holm over the tasks of the row."]) + "\n"


def _overview_table(boards: Sequence[Board]) -> str:
    names = sorted({entry.name for board in boards for entry in board.entries})
    headers = ["method"]
    headers += [f"[{b.task.name}]({b.protocol}/{b.task.name}.md) {b.task.primary.key}" for b in boards]
    rows = []
    for name in names:
        entries = [next((e for e in board.entries if e.name == name), None) for board in boards]
        better = better_places(boards, entries)
        rows.append(
            [
                name,
                *(
                    _overview_cell(board, entry, i in better)
                    for i, (board, entry) in enumerate(zip(boards, entries, strict=True))
                ),
            ]
        )
    return _markdown_table(headers, rows)


def better_places(boards: Sequence[Board], entries: Sequence[Entry | None]) -> set[int]:
    """Places of the boards on which a method beats zero-shot, p adjusted over them."""
    gains = {
        place: (entry.gain.differences[board.task.primary.key], board.task.primary.higher_is_better)
        for place, (board, entry) in enumerate(zip(boards, entries, strict=True))
        if entry and entry.gain and entry.rank
    }
    adjusted = holm([own.p for own, _ in gains.values()])
    return {
        place
        for (place, (own, higher)), p in zip(gains.items(), adjusted, strict=True)
        if p < _LEVEL and own.micro.value is not None and (own.micro.value > 0) == higher
    }


def _overview_cell(board: Board, entry: Entry | None, better: bool) -> str:
    if entry is None:
        return _EMPTY
    value = _number(entry.scores[board.task.primary.key][0].value, ".4f")
    return f"**{value}**" if better else value


def _score(board: Board, entry: Entry, place: int) -> str:
    metrics = board.task.metrics
    return f"{metrics[place].key} {_estimate(entry.scores[metrics[place].key][0])}" if place < len(metrics) else _EMPTY


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return _EMPTY
    interval = f" [{estimate.ci95[0]:.4f}, {estimate.ci95[1]:.4f}]" if estimate.ci95 else ""
    return f"{estimate.value:.4f}{interval}"


def _difference(board: Board, entry: Entry) -> str:
    if entry.gain is None:
        return _EMPTY
    micro = entry.gain.differences[board.task.primary.key].micro
    if micro.value is None:
        return _EMPTY
    return f"{micro.value:+.4f} ({'p<0.001' if entry.gain.p < 0.001 else f'p={entry.gain.p:.3f}'})"


def _share(value: float | None) -> str:
    return _EMPTY if value is None else f"{value:.1%}"


def _number(value: float | None, style: str) -> str:
    return _EMPTY if value is None else f"{value:{style}}"
