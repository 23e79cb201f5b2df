"""Boards as the Hugging Face hub's evaluation results: ``.eval_results/*.yaml`` of model repositories."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from lampbench.leaderboard._board import Board, Entry


def hub_results(boards: Sequence[Board], dataset: str, source: str | None = None) -> dict[PurePosixPath, str]:
    """Path -> YAML text: below a folder per model, a file per task and method, because the hub allows one score a file.

    A method without a language model has no model's repository, and no file.

    Args:
        boards: What to export.
        dataset: The id of the benchmark's dataset on the hub, whose tasks have LampBench's names.
        source: Where the results come from: an address.
    """
    files: dict[PurePosixPath, str] = {}
    for board in boards:
        for entry in board.entries:
            backbone = entry.results[0].identity.backbone
            value = entry.scores[board.task.primary.key][0].value
            if backbone is None or value is None:
                continue
            name = _file_name(f"{board.task.name}-{entry.name}-{board.protocol}")
            ids = "-".join(result.row.run_id for result in entry.results[:1])
            path = PurePosixPath(*_file_name(backbone.id, "/").split("/"), ".eval_results", f"{name}-{ids}.yaml")
            files[path] = _yaml(_result(board, entry, value, dataset, source))
    return files


def _result(board: Board, entry: Entry, value: float, dataset: str, source: str | None) -> dict[str, Any]:
    score, metric = entry.scores[board.task.primary.key][0], board.task.primary
    notes = [f"LampBench {board.protocol}, method {entry.name}: {metric.key}"]
    notes += ["higher is better" if metric.higher_is_better else "lower is better"]
    notes += [] if score.ci95 is None else [f"95% interval {score.ci95[0]:.4f} to {score.ci95[1]:.4f}"]
    notes += [f"{board.users} users, {board.queries} queries"]
    notes += [f"{board.label}, invented users"] if board.label else []
    finished = entry.results[0].row.provenance.finished
    found: dict[str, Any] = {"dataset": {"id": dataset, "task_id": board.task.name}, "value": value}
    found |= {} if finished is None else {"date": finished}
    found |= {} if source is None else {"source": {"url": source, "name": "LampBench"}}
    return {**found, "notes": "; ".join(notes)}


def _yaml(result: dict[str, Any]) -> str:
    """A list of one result. JSON texts are YAML texts, so that no character needs a rule of its own."""
    lines = []
    for key, value in result.items():
        if isinstance(value, dict):
            lines += [f"{key}:", *(f"  {inner}: {json.dumps(own)}" for inner, own in value.items())]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join(("- " if not number else "  ") + line for number, line in enumerate(lines)) + "\n"


def _file_name(text: str, allowed: str = "") -> str:
    return re.sub(rf"[^A-Za-z0-9._=,{allowed}-]+", "-", text).strip("-./")
