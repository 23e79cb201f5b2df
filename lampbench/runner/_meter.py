"""Time, memory and tokens of a run's phases."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Measurement:
    """What one stretch of work cost.

    Attributes:
        seconds: Wall clock, the device synchronised at both ends.
        memory: Peak bytes: ``host`` (resident), and on a GPU ``allocated`` and ``reserved``. A value is None if it
            cannot be measured for this stretch alone.
        tokens: ``train``, ``prompt`` and ``generated`` tokens.
    """

    seconds: float = 0.0
    memory: dict[str, int | None] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)


class Meter:
    """Measures stretches of work on one device.

    Args:
        device: ``cpu`` or a CUDA device.
        tokens: Reads the running totals of tokens.
    """

    def __init__(self, device: str, tokens: Callable[[], dict[str, int]]) -> None:
        self._cuda = device if device.startswith("cuda") else None
        self._tokens = tokens

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Measure the ``with`` block; the result is filled in at its end."""
        result = Measurement()
        host_peak_is_fresh = _reset_host_peak()
        if self._cuda:
            import torch

            torch.cuda.synchronize(self._cuda)
            torch.cuda.reset_peak_memory_stats(self._cuda)
        before = self._tokens()
        start = time.perf_counter()
        yield result
        if self._cuda:
            torch.cuda.synchronize(self._cuda)
        result.seconds = time.perf_counter() - start
        result.tokens = {name: total - before.get(name, 0) for name, total in self._tokens().items()}
        result.memory = {"host": _host_peak() if host_peak_is_fresh else None}
        if self._cuda:
            result.memory["allocated"] = torch.cuda.max_memory_allocated(self._cuda)
            result.memory["reserved"] = torch.cuda.max_memory_reserved(self._cuda)


class OptimizerWatch:
    """Counts the parameters that torch optimizers really hold while a method trains.

    Every optimizer counts once, at its first step, whoever made it; so a method's report of its
    trainable parameters can be checked without trusting it. Of an optimizer that moves stacked users,
    one user's share counts.

    Attributes:
        largest: The most that one optimizer held a user; None where it could not be watched, because torch
            was first imported by the method itself.
    """

    def __init__(self) -> None:
        self.largest: int | None = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count inside the ``with`` block."""
        if "torch" not in sys.modules:
            # A method without a language model does not wait for torch.
            yield
            if "torch" in sys.modules:
                self.largest = None
            return
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        handle = register_optimizer_step_pre_hook(self._count)
        try:
            yield
        finally:
            handle.remove()

    def _count(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        held = sum(
            p.numel() // group.get("users", 1)
            for group in optimizer.param_groups
            for p in group["params"]
            if p.requires_grad
        )
        self.largest = max(self.largest or 0, held)


def _reset_host_peak() -> bool:
    """Start a new peak of resident memory; False if the system cannot do that."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _host_peak() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
