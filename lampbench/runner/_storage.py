"""A file system that refuses: full, read-only, broken."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lampbench.core import LampBenchError

# What is nobody's mistake but the file system's state.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
# Libraries written in Rust say the number in words alone.
_OS_ERROR = re.compile(r"os error (\d+)")


class StorageError(LampBenchError):
    """The run folder cannot be written; what was finished before is intact."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns a refusal of the file system while ``path`` is written into a StorageError."""
    try:
        yield
    except Exception as error:
        number = _refusal(error)
        if number is None:
            raise
        raise StorageError(
            f"cannot write {path}: {os.strerror(number)}; what is finished is kept: make room for it, or mend its "
            "permissions, and the same command continues"
        ) from error


def _refusal(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno if error.errno in _REFUSALS else None
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found and int(found[1]) in _REFUSALS else None
