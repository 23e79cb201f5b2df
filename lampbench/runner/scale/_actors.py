"""What runs in processes of Ray: workers, and what stands between them and the driver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lampbench
from lampbench.core import use_threads
from lampbench.runner._environment import environment
from lampbench.runner.scale._units import Unit
from lampbench.runner.scale._worker import Delivery, Worker


class Control:
    """An actor between driver and workers: how far they are, and whether to stop."""

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}
        self._stop = False

    def report(self, name: str, share: float) -> bool:
        """Keep how far a unit is; tells whether to stop."""
        self._shares[name] = share
        return self._stop

    def stop(self) -> None:
        """Every worker that reports is to stop."""
        self._stop = True

    def shares(self, names: Sequence[str]) -> dict[str, float]:
        """How far these units are."""
        return {name: self._shares.get(name, 0.0) for name in names}

    def forget(self, name: str) -> None:
        """A unit has ended."""
        self._shares.pop(name, None)


class WorkerActor:
    """A worker in a process of its own. It loads nothing before its first unit: a load that fails is a failed unit."""

    def __init__(self, control: str, shared_file: str, token: str, threads: int) -> None:
        import ray

        # Nothing has imported torch in this process yet.
        use_threads(threads)

        self._control = ray.get_actor(control)
        self._sees_runs = _reads(Path(shared_file), token)
        self._worker = Worker(self._sees_runs, self._report)

    def about(self, device: str | None, cpus: int) -> dict[str, Any]:
        """Where this worker is."""
        if device is not None:
            # Only then is it known how many threads it computes with.
            import torch  # noqa: F401
        gpu = device is not None and device.startswith("cuda")
        return {
            "lampbench": lampbench.__version__,
            "environment": environment(device or "cpu", None if gpu else cpus),
            "sees_runs": self._sees_runs,
        }

    def do(self, unit: Unit) -> Delivery:
        """Do a unit."""
        return self._worker.do(unit)

    def close(self) -> None:
        """Leave nothing on this machine."""
        self._worker.close()

    def _report(self, name: str, share: float) -> bool:
        import ray

        try:
            return bool(ray.get(self._control.report.remote(name, share)))
        except ray.exceptions.RayError:
            # It is being restarted.
            return False


def _reads(path: Path, token: str) -> bool:
    try:
        return path.read_text() == token
    except OSError:
        return False
