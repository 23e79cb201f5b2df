"""Runs in Weights & Biases."""

from __future__ import annotations

import os

from lampbench.rows import RunRow
from lampbench.trackers._numbers import Progress, results_of, settings_of
from lampbench.trackers._tracker import Phase, TrackedRun, Tracker


class WandbTracker(Tracker):
    """Runs in Weights & Biases: settings as config, phases and results as logged values.

    Runs are written to the folder ``wandb`` and stay on this machine until ``wandb sync`` sends them;
    ``WANDB_MODE=online`` sends them at once. ``WANDB_PROJECT`` names the project (default: ``lampbench``). Code, git,
    console, machine and command line are not recorded.
    """

    packages = ("wandb",)
    extra = "wandb"

    def on_plan(self, run: TrackedRun) -> None:
        """Start a run."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        quiet = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, x_disable_meta=True, x_disable_stats=True
        )
        self._progress = Progress()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lampbench"),
            name=run.name,
            config=settings_of(run),
            mode="online" if os.environ.get("WANDB_MODE") == "online" else "offline",
            # Several runs may be under way in this process.
            reinit="create_new",
            settings=quiet,
        )

    def on_phase(self, phase: Phase) -> None:
        """Log the phase's sums so far."""
        self._run.log(self._progress.add(phase.name, phase.seconds, phase.tokens, phase.users))

    def on_row(self, row: RunRow) -> None:
        """Log the results, and end the run."""
        self._run.summary.update({**results_of(row), "status": row.status})
        self._run.finish(exit_code=0 if row.status == "success" else 1)
