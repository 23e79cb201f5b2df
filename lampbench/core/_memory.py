"""Host memory: how much is free, and whether it ran out."""

from __future__ import annotations

import sys
from pathlib import Path

_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def free_host_memory() -> int:
    """Free bytes, by the counts of the system and of a container."""
    # `lampbench doctor` must start even if it is missing.
    import psutil

    return min(int(psutil.virtual_memory().available), _left_to_container())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocation that failed, on a GPU or the CPU."""
    # By name: torch may not be installed.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error))
    )


def _left_to_container() -> int:
    """What a container's limit leaves, which the system's free memory does not show."""
    try:
        return int(_LIMIT.read_text()) - int(_USED.read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return sys.maxsize
