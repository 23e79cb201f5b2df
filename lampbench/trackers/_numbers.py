"""What trackers show of a run: plain names and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lampbench.rows import RunRow
from lampbench.trackers._tracker import TrackedRun


def settings_of(run: TrackedRun) -> dict[str, Any]:
    """A run's identity, flat: inner names follow a dot."""
    facts = {"run_id": run.run_id, "users": run.users, "queries": run.queries}
    facts |= {"data": run.label} if run.label else {}
    facts |= {"licence": run.licence} if run.licence else {}
    return {**facts, **_flat(run.identity)}


def results_of(row: RunRow) -> dict[str, float]:
    """A row's metrics with their intervals, and its costs; what was not measured is left out."""
    found: dict[str, float | None] = {}
    for key, metric in (row.metrics or {}).items():
        found[key] = metric.value
        if metric.ci95 is not None:
            # MLflow's files take "/" for a folder, which cannot have the name of a metric.
            found |= {f"{key}.low": metric.ci95[0], f"{key}.high": metric.ci95[1]}
    if row.cost is not None:
        cost = row.cost
        found |= {"parameters/shared": cost.parameters.shared, "parameters/user": cost.parameters.per_user}
        found |= {"bytes/shared": cost.bytes.shared, "bytes/user": cost.bytes.per_user}
        found["seconds/user"] = cost.seconds_per_user.mean if cost.seconds_per_user else None
    return {name: float(value) for name, value in found.items() if value is not None}


class Progress:
    """Seconds and tokens of each phase so far."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}

    def add(self, phase: str, seconds: float, tokens: Mapping[str, int], users: int) -> dict[str, float]:
        """Add a stretch of work; the sums that it changed."""
        added: dict[str, float] = {f"{phase}/seconds": seconds}
        added |= {f"{phase}/{name}": count for name, count in tokens.items() if count and name.endswith("_tokens")}
        added |= {f"{phase}/users": users} if users else {}
        for name, value in added.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        return {name: self._sums[name] for name in added}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value
    return flat
