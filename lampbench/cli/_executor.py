"""Where runs are done: in this process, or by workers on Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import click

from lampbench.core import InputError, convert
from lampbench.rows import RunRow
from lampbench.runner import Executor, Plan, Planner, Reporter, Session, limit_memory

_EXECUTORS = ("local", "ray")
_RAY_ONLY = ("address", "workers", "gpus-per-worker")
_OPTIONS = (
    click.option("--executor", type=click.Choice(_EXECUTORS), help="local (default), or ray: many GPUs and machines."),
    click.option("--address", help="Of a running Ray cluster, or auto. Default: start one on this machine."),
    click.option("--workers", type=click.IntRange(min=1), help="Ray workers. Default: as many as there is room for."),
    click.option("--gpus-per-worker", type=float, metavar="G", help="Default 1 on GPUs, else 0."),
)

MakeExecutor = Callable[[Planner, Reporter], Executor]
_Command = TypeVar("_Command", bound=Callable[..., Any])


def executor_options(command: _Command) -> _Command:
    """The options that choose an executor."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def placed(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with the device that workers have: GPUs that this process need not have, or none.

    Without ``--device`` and ``--gpus-per-worker`` they have what this machine has.
    """
    if given.get("executor") != "ray":
        return dict(given)
    gpus = _gpus(given) > 0
    return {**given, "device": "cuda" if gpus else "cpu", "elsewhere": gpus}


def chosen_executor(given: Mapping[str, Any]) -> MakeExecutor:
    """What makes the executor that the user asked for.

    Raises:
        InputError: An option does not fit the executor, or has a wrong value.
    """
    name = given.get("executor", "local")
    if name not in _EXECUTORS:
        raise InputError(f"executor: expected {' or '.join(_EXECUTORS)}, found {name!r}")
    if name == "local":
        wrong = next((option for option in _RAY_ONLY if option in given), None)
        if wrong is not None:
            raise InputError(f"--{wrong} is for --executor ray")
        return _Local
    address = convert(given.get("address"), str | None, "address")
    workers = convert(given.get("workers"), int | None, "workers")
    gpus = _gpus(given)
    _check(str(given.get("device", "auto")), workers, gpus)

    def make(planner: Planner, reporter: Reporter) -> Executor:
        from lampbench.runner.scale import ClusterSettings, RayExecutor

        return RayExecutor(planner, reporter, ClusterSettings(address, workers, gpus))

    return make


def _check(device: str, workers: int | None, gpus: float) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, found {workers}")
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise InputError(f"gpus-per-worker: expected a share of one GPU or a whole number of them, found {gpus:g}")
    if device.startswith("cuda:"):
        raise InputError(f"--device {device}: Ray gives every worker its GPU; use --device cuda")
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device}: Ray's workers are on cpu or cuda")
    if device != "auto" and (device == "cuda") != (gpus > 0):
        raise InputError(f"--device {device} and --gpus-per-worker {gpus:g} contradict each other")


def _gpus(given: Mapping[str, Any]) -> float:
    if "gpus-per-worker" in given:
        return float(convert(given["gpus-per-worker"], float, "gpus-per-worker"))
    device = str(given.get("device", "auto"))
    return float(_has_gpu() if device == "auto" else device.startswith("cuda"))


@cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


class _Local:
    """Runs in this process, within its memory."""

    def __init__(self, planner: Planner, reporter: Reporter) -> None:
        self._limit = planner.settings.memory_limit
        self._session = Session(planner, reporter)

    def run_all(self, plans: Sequence[Plan], *, force: bool = False) -> list[RunRow]:
        """The plans' rows."""
        limit_memory(self._limit, next((plan.backbone.device for plan in plans if plan.backbone), "cpu"))
        return self._session.run_all(plans, force=force)
