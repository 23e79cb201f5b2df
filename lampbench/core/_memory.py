"""Host memory: what is left, and whether it ran out."""

from __future__ import annotations

import sys
from pathlib import Path

_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def free_host_memory() -> int:
    """Bytes that can still be taken, by the system's and a container's own count."""
    # `lampbench doctor` must start even if it is missing.
    import psutil

    return min(int(psutil.virtual_memory().available), _left_to_container())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocation that failed, on a GPU or the CPU."""
    # By name: torch need not be there.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error))
    )


def _left_to_container() -> int:
    """What a container's own limit leaves, which the system's free memory does not tell."""
    try:
        return int(_LIMIT.read_text()) - int(_USED.read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return sys.maxsize
