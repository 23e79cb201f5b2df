"""Runs in MLflow."""

from __future__ import annotations

import os
import time
from typing import Any

from lampbench.rows import RunRow
from lampbench.trackers._numbers import Progress, results_of, settings_of
from lampbench.trackers._tracker import Phase, TrackedRun, Tracker

# As long as every version of MLflow takes.
_LONGEST = 500
_STATUS = {"success": "FINISHED", "failed": "FAILED", "incomplete": "KILLED"}


class MlflowTracker(Tracker):
    """Runs in MLflow: settings as parameters, phases and results as metrics.

    Where they go is for MLflow's own variables to say (``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``); without
    them it is MLflow's place on this machine, in the experiment ``lampbench``.
    """

    packages = ("mlflow",)
    extra = "mlflow"

    def on_plan(self, run: TrackedRun) -> None:
        """Start a run; one that is resumed goes on in its own."""
        # Read when MLflow is imported.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._progress = Progress()
        self._step = 0
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "lampbench")
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        found = self._client.search_runs([experiment], f"tags.lampbench_run = '{run.run_id}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._client.create_run(
            experiment, run_name=run.name, tags={"lampbench_run": run.run_id}
        ).info.run_id
        for key, value in settings_of(run).items():
            self._client.log_param(self._run, key, str(value)[:_LONGEST])

    def on_phase(self, phase: Phase) -> None:
        """Log the phase's sums so far."""
        self._step += 1
        self._log(self._progress.add(phase.name, phase.seconds, phase.tokens, phase.users))

    def on_row(self, row: RunRow) -> None:
        """Log the results, and end the run."""
        self._log(results_of(row))
        self._client.set_terminated(self._run, _STATUS[row.status])

    def _log(self, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics: list[Any] = [Metric(name, value, now, self._step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)
