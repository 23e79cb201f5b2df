"""The table that ends a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from lampbench.runner import PHASES


def run_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of ``row.json`` as one table: scores, parameters, seconds a phase."""
    headers = ["method", "task", "primary", "secondary", "shared params", "params/user"]
    headers += [f"{phase} s" for phase in PHASES]
    return tabulate([_cells(row) for row in rows], headers=headers, disable_numparse=True, colalign=_ALIGN)


_ALIGN = ("left", "left", *["right"] * 9)


def _cells(row: Mapping[str, Any]) -> list[str]:
    identity = row["identity"]
    names = [identity["method"], identity["task"]]
    if row["status"] != "success":
        return [*names, row["status"].upper(), *[""] * 8]
    primary_first = sorted(row["metrics"].items(), key=lambda entry: not entry[1]["primary"])
    scores = [_score(key, metric["value"]) for key, metric in primary_first[:2]]
    parameters = row["cost"]["parameters"]
    seconds = row["cost"]["seconds"]
    return [
        *names,
        *(scores + [""])[:2],
        f"{parameters['shared']:,}",
        f"{parameters['per_user']:,}",
        *(("–" if seconds[phase] is None else f"{seconds[phase]:.2f}") for phase in PHASES),
    ]


def _score(key: str, value: float | None) -> str:
    return f"{key} {'not finite' if value is None else f'{value:.4f}'}"
