"""One setting that was tried, and which of many is best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import asdict

from lampbench.core import Task, config_to_json
from lampbench.leaderboard import compare, read_result
from lampbench.metrics import Difference, Estimate
from lampbench.rows import Row, RunRow
from lampbench.runner import Plan


@dataclass(frozen=True)
class Trial:
    """A run on the held-out users, or settings that gave none.

    Attributes:
        number: 0 is the preset.
        settings: What was drawn; nothing for the preset.
        status: ``success``, ``failed`` (the run), or ``refused`` (the method takes no such settings together).
        config: The resolved config; None where it was refused.
        run: The run's folder; None where there is none.
        metric: The primary metric's name, value, interval and direction; None without a result.
        parameters: Trainable parameters, ``shared`` and ``per_user``; None without a result.
        seconds: All phases together; None without a result.
        failed_checks: Isolation checks that the run failed: such a trial is not chosen.
        error: Why there is no result.
    """

    number: int
    settings: Mapping[str, Any]
    status: Literal["success", "failed", "refused"]
    config: Mapping[str, Any] | None = None
    run: Path | None = None
    metric: Mapping[str, Any] | None = None
    parameters: Mapping[str, int] | None = None
    seconds: float | None = None
    failed_checks: tuple[str, ...] = ()
    error: str | None = None

    @classmethod
    def of(cls, number: int, settings: Mapping[str, Any], plan: Plan, row: RunRow) -> Trial:
        """What a run's row says of it."""
        made: dict[str, Any] = {"config": config_to_json(plan.config), "run": plan.folder}
        if not isinstance(row, Row):
            return cls(number, settings, "failed", error=row.error, **made)
        key = plan.task.primary.key
        primary = row.metrics[key]
        return cls(
            number,
            settings,
            "success",
            metric={
                "name": key,
                "value": primary.value,
                "ci95": primary.ci95 and list(primary.ci95),
                "higher_is_better": primary.higher_is_better,
            },
            parameters=asdict(row.cost.parameters),
            seconds=row.cost.seconds.total,
            failed_checks=row.failed_checks,
            **made,
        )

    @property
    def estimate(self) -> Estimate:
        """The primary metric; no value without a result."""
        if self.metric is None:
            return Estimate(None)
        low_high = self.metric["ci95"]
        return Estimate(self.metric["value"], None if low_high is None else (low_high[0], low_high[1]))

    @property
    def ranked(self) -> bool:
        """Whether it can be chosen: it has a finite score, and its users were kept apart."""
        return self.estimate.value is not None and not self.failed_checks


def gain(task: Task, preset: Trial, trial: Trial) -> Difference | None:
    """The trial's primary metric minus the preset's, on the same users; None for the preset, or without its result."""
    if trial is preset or preset.metric is None or preset.run is None or trial.run is None:
        return None
    comparison = compare([read_result(trial.run)], [read_result(preset.run)], ("trial", "preset"))
    return comparison.differences[task.primary.key]


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the best primary metric; of equals the one that trains fewer parameters, then the earlier.

    A user's parameters count before the shared ones. None where no trial can be chosen.
    """
    return min((trial for trial in trials if trial.ranked), key=_order, default=None)


def _order(trial: Trial) -> tuple[float, int, int, int]:
    metric, parameters = trial.metric or {}, trial.parameters or {}
    loss = -metric["value"] if metric["higher_is_better"] else metric["value"]
    return loss, parameters["per_user"], parameters["shared"], trial.number
