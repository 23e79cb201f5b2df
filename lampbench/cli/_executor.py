"""How runs are carried out, in this process or by workers on Ray, and how their progress is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from lampbench.core import InputError
from lampbench.runner import Executor, LocalExecutor, Settings

if TYPE_CHECKING:
    from tqdm import tqdm

_RAY_ONLY = ("address", "workers", "gpus_per_worker")


def placed(settings: Settings) -> Settings:
    """``settings`` with the device that Ray's workers have: GPUs that this process need not have, or none.

    Without ``device`` and ``gpus_per_worker`` they have what this machine has.

    Raises:
        InputError: Options do not fit the executor, or each other.
    """
    if settings.executor == "local":
        wrong = next((name for name in _RAY_ONLY if getattr(settings, name) is not None), None)
        if wrong is not None:
            raise InputError(f"--{wrong.replace('_', '-')} is for --executor ray")
        return settings
    device = settings.device
    if device.startswith("cuda:"):
        raise InputError(f"--device {device}: Ray gives every worker its GPU; use --device cuda")
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device}: Ray's workers are on cpu or cuda")
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = float(_has_gpu() if device == "auto" else device == "cuda")
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise InputError(f"gpus-per-worker: expected a share of one GPU or a whole number of them, found {gpus:g}")
    if device != "auto" and (device == "cuda") != (gpus > 0):
        raise InputError(f"--device {device} and --gpus-per-worker {gpus:g} contradict each other")
    return replace(settings, gpus_per_worker=gpus, device="cuda" if gpus else "cpu")


def executor_of(settings: Settings) -> Executor:
    """What carries out runs, as ``settings`` ask."""
    if settings.executor == "local":
        return LocalExecutor(ProgressReporter())
    from lampbench.runner.scale import ClusterSettings, RayExecutor

    workers = ClusterSettings(
        settings.address, settings.workers, settings.gpus_per_worker or 0.0, threads=settings.threads or 1
    )
    return RayExecutor(ProgressReporter(), workers)


@cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


class Bar:
    """A progress bar of tqdm."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def move(self, done: int, total: int | None) -> None:
        """Show ``done`` of ``total``."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)


class ProgressReporter:
    """A bar per phase on standard error, and lines between them."""

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Bar]:
        """A bar for one phase."""
        from tqdm import tqdm

        layout = "{desc:<32} {percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}]"
        with tqdm(total=total, desc=name, file=sys.stderr, bar_format=layout, mininterval=0.2) as bar:
            yield Bar(bar)

    def say(self, text: str) -> None:
        """A line for the user."""
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
