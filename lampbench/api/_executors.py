"""What carries out runs: this process, or workers on Ray."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from lampbench.core import InputError
from lampbench.runner import Executor, LocalExecutor, Reporter, Settings

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


def executor_of(settings: Settings, reporter: Reporter) -> Executor:
    """What carries out runs, as ``settings`` ask."""
    if settings.executor == "local":
        return LocalExecutor(reporter)
    from lampbench.runner.scale import ClusterSettings, RayExecutor

    workers = ClusterSettings(
        settings.address, settings.workers, settings.gpus_per_worker or 0.0, threads=settings.threads or 1
    )
    return RayExecutor(reporter, workers)


@cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
