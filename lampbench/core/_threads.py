"""Threads: how many cores this process has, how busy they are, and how OpenMP waits.

OpenMP reads the environment when its library is loaded, so ``use_threads`` is called before torch is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The products of small models do not gain from more threads; ``--threads`` asks for more.
MOST_THREADS = 8
# By default a thread that waits for the others spins for milliseconds, which keeps the core from other processes:
# beside a busy one a run becomes ten times slower. A few thousand turns, some microseconds, cost others little, and
# without them a quiet run is a fifth slower (benchmarks/threads.py).
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "0"}
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_CORES = Path("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list")


def available_cores() -> int:
    """How many cores this process can use, by its CPU affinity and the quota of its cgroup (v1 or v2).

    Processors that share a core (hyper-threads) count once: torch is no faster with a thread for each.
    """
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = len({_core(processor) for processor in processors})
    quotas = (quota for folder in _group_folders() if (quota := _quota(folder)) is not None)
    return max(1, min([cores, *map(int, quotas)]))


def load_per_core() -> float | None:
    """The load average of the last minute per processor of the machine; None if the system does not provide it.

    Above 1, more threads want to compute than the machine has processors.
    """
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (OSError, AttributeError):
        return None


def use_threads(count: int | None = None) -> None:
    """Choose the number of threads that torch computes with, and let waiting threads sleep.

    If torch is already loaded, only the number can be changed.

    Variables of OpenMP that the user has set are kept; ``count`` takes precedence over ``OMP_NUM_THREADS``.

    Args:
        count: Threads; None for as many as there are available cores, at most ``MOST_THREADS``.
    """
    if not any(name in os.environ for name in _PASSIVE):
        os.environ.update(_PASSIVE)
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(count)
    os.environ.setdefault("OMP_NUM_THREADS", str(min(available_cores(), MOST_THREADS)))


def _core(processor: int) -> str:
    """Names the core that a processor belongs to."""
    try:
        return Path(str(_CORES).format(processor)).read_text()
    except OSError:
        return str(processor)


def _group_folders() -> list[Path]:
    """The folders of this process's cgroup and of those around it: all their quotas hold."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            top = _GROUPS if controllers == "" else _GROUPS / "cpu"
            own = top / path.lstrip("/")
            folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(top)]
    return folders


def _quota(folder: Path) -> float | None:
    """How many cores a cgroup may use; None without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
    return share if share > 0 else None
