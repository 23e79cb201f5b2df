"""One process at a time."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lampbench.core._errors import LampBenchError

if sys.platform != "win32":
    import fcntl

# File systems without locks answer so.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path``; it is free again when this process ends, however it ends.

    Where the system has no locks, nothing is held.

    Args:
        path: The lock file; it is made, names the process, and stays.
        what: What other processes are kept from, for the message.

    Raises:
        LampBenchError: Another process holds it; the message names its id.
        OSError: The file cannot be written.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(lock, what)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(lock)


def _take(lock: int, what: str) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return
        owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "of unknown id"
        raise LampBenchError(f"process {owner} is {what}; wait for it to end, or stop it") from None
