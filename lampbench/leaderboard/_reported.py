"""Papers' numbers, read with care: each with source, protocol and model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampbench.core import InputError, Task, tasks

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
        name: The file's, without its suffix.
        source: Paper or page.
        protocol: The protocol here whose queries it stands for, or comes nearest to.
        backbone: The model, as the source names it.
        reasons: Why our numbers may differ.
    """

    name: str
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


def _read(path: Path) -> Reported:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict) or set(value) != _FIELDS or not isinstance(value["rows"], list):
        raise InputError(f"{path}: expected an object with exactly {', '.join(sorted(_FIELDS))}")
    rows = tuple(_row(row, f"{path}: rows[{number}]") for number, row in enumerate(value["rows"]))
    source, protocol, backbone, reasons = (value[k] for k in ("source", "protocol", "backbone", "why_ours_may_differ"))
    texts = [source, protocol, backbone, *(reasons if isinstance(reasons, list) else [reasons])]
    if not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"{path}: source, protocol, backbone and every reason must be a text")
    return Reported(path.stem, source, protocol, backbone, tuple(reasons), rows)


def _row(row: Any, where: str) -> ReportedRow:
    if not isinstance(row, dict) or set(row) != {"method", "task", "metrics"} or not isinstance(row["metrics"], dict):
        raise InputError(f"{where}: expected method, task and metrics")
    if not (isinstance(row["task"], str) and isinstance(row["method"], str)):
        raise InputError(f"{where}: method and task must be names")
    task: Task = tasks().load(row["task"])
    known = {metric.key for metric in task.metrics}
    for key, number in row["metrics"].items():
        if key not in known or isinstance(number, bool) or not isinstance(number, (int, float)) or abs(number) > 1e300:
            raise InputError(f"{where}: {key!r}: {number!r}; {task.name} has numbers for {', '.join(sorted(known))}")
    return ReportedRow(row["method"], task, row["metrics"])
