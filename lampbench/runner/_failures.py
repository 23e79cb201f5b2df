"""Why a run failed: a file system that refuses, a limit, an error of a plug-in."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lampbench.core import LampBenchError, first_line, is_out_of_memory

# Errors that come from the state of the file system, not from a mistake.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
# Libraries written in Rust give the number only in the text.
_OS_ERROR = re.compile(r"os error (\d+)")


class StorageError(LampBenchError):
    """The run folder cannot be written; what was finished before is intact."""


class TimeLimitError(LampBenchError):
    """A run took longer than the time limit."""


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
            f"cannot write {path}: {os.strerror(number)}; finished work is kept; free some space or "
            "correct the permissions, and repeat the command to resume"
        ) from error


def _refusal(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno if error.errno in _REFUSALS else None
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found and int(found[1]) in _REFUSALS else None


def cause(error: BaseException, phase: str) -> str:
    """What ended a run, for its row and for the user."""
    text = first_line(error)
    if isinstance(error, LampBenchError):
        return f"{phase}: {text}" if isinstance(error, TimeLimitError) else text
    if is_out_of_memory(error):
        return (
            f"{phase}: out of memory ({text or type(error).__name__}); use a smaller --batch-size or model, or allow "
            "more (--memory-limit)"
        )
    return f"{type(error).__name__}: {text}"
