"""Papers' numbers beside ours: with source and protocol, in a page of their own, never ranked together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from lampbench.core import InputError, Task, tasks
from lampbench.leaderboard._board import Board, Entry

_EMPTY = "–"
_FIELDS = {"source", "protocol", "backbone", "why_ours_may_differ", "rows"}


@dataclass(frozen=True)
class ReportedRow:
    """One published score: ``metrics`` by official key, as printed."""

    method: str
    task: Task
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Reported:
    """What one source publishes under one protocol.

    Attributes:
        source: Paper or page.
        protocol: The protocol here whose queries it stands for, or comes nearest to.
        backbone: The model, as the source names it.
        reasons: Why our numbers may differ.
    """

    source: str
    protocol: str
    backbone: str
    reasons: tuple[str, ...]
    rows: tuple[ReportedRow, ...]


def read_reported(root: Path) -> list[Reported]:
    """Every file of ``reported/`` below ``root``, in order of name.

    Raises:
        InputError: A file has another shape, an unknown task, or a metric that its task does not have.
    """
    return [_read(path) for path in sorted((root / "reported").glob("*.json"))]


def reported_page(reported: Sequence[Reported], boards: Sequence[Board]) -> str:
    """The page as Markdown."""
    parts = [
        "# Published numbers",
        "From papers and pages, as printed: not measured here, on other machines, with other code. They stand beside "
        "our runs of the same method under the same protocol, where there are any, and are ranked with none of them.",
    ]
    for source in reported:
        parts += [f"## {source.source}", f"Protocol {source.protocol}, model {source.backbone}."]
        table = [cells for row in source.rows for cells in _cells(row, source.protocol, boards)]
        headers = ("method", "task", "metric", "published", "ours", "ours - published", "our model")
        parts.append(tabulate(table, headers=headers, tablefmt="github", disable_numparse=True))
        parts.append("Why ours may differ:\n\n" + "\n".join(f"* {reason}" for reason in source.reasons))
    return "\n\n".join(parts) + "\n"


def _cells(row: ReportedRow, protocol: str, boards: Sequence[Board]) -> Iterator[list[str]]:
    own = list(_ours(row, protocol, boards))
    for key, published in row.metrics.items():
        head = [row.method, row.task.name, key, f"{published:.3f}"]
        if not own:
            yield [*head, _EMPTY, _EMPTY, _EMPTY]
        for board, entry in own:
            value = entry.scores[key][0].value
            numbers = [_EMPTY, _EMPTY] if value is None else [f"{value:.4f}", f"{value - published:+.4f}"]
            yield [*head, *numbers, board.backbone or _EMPTY]


def _ours(row: ReportedRow, protocol: str, boards: Sequence[Board]) -> Iterator[tuple[Board, Entry]]:
    for board in boards:
        if (board.protocol, board.task.name, board.limit) == (protocol, row.task.name, None):
            yield from ((board, entry) for entry in board.entries if entry.method == row.method and entry.rank)


def _read(path: Path) -> Reported:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict) or set(value) != _FIELDS or not isinstance(value["rows"], list):
        raise InputError(f"{path}: expected an object with exactly {', '.join(sorted(_FIELDS))}")
    rows = tuple(_row(row, f"{path}: rows[{number}]") for number, row in enumerate(value["rows"]))
    source, protocol, backbone, reasons = (value[k] for k in ("source", "protocol", "backbone", "why_ours_may_differ"))
    if not all(isinstance(text, str) and text for text in (source, protocol, backbone, *reasons)):
        raise InputError(f"{path}: source, protocol, backbone and every reason must be a text")
    return Reported(source, protocol, backbone, tuple(reasons), rows)


def _row(row: Any, where: str) -> ReportedRow:
    if not isinstance(row, dict) or set(row) != {"method", "task", "metrics"} or not isinstance(row["metrics"], dict):
        raise InputError(f"{where}: expected method, task and metrics")
    task: Task = tasks().load(row["task"])
    known = {metric.key for metric in task.metrics}
    for key, number in row["metrics"].items():
        if key not in known or isinstance(number, bool) or not isinstance(number, (int, float)):
            raise InputError(f"{where}: {key!r}: {number!r}; {task.name} has numbers for {', '.join(sorted(known))}")
    return ReportedRow(str(row["method"]), task, row["metrics"])
