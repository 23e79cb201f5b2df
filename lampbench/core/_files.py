"""Files that are whole or absent, and where LampBench keeps what it can fetch or compute again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "LAMPBENCH_CACHE"


def cache_folder() -> Path:
    """What LampBench can fetch or compute again lies here (``LAMPBENCH_CACHE``, else ``~/.cache/lampbench``)."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "lampbench"


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; refuses NaN."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1, allow_nan=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder that becomes ``target`` when the block ends well, and vanishes when it does not.

    What a killed process left of the same folder goes now.

    Raises:
        OSError: ``target`` is there and not empty when the block ends, or the file system refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{target.name[:40]}.{_host()}"
    remove_abandoned(target.parent, f"{stem}.")
    temporary = target.with_name(f"{stem}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Delete folders called ``prefix``, a process id, a dot and more, whose processes are gone from this machine."""
    # `lampbench doctor` must start where it is missing.
    import psutil

    for path in folder.glob(f"{prefix}*.*"):
        pid = path.name.removeprefix(prefix).partition(".")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _host() -> str:
    # A cache may lie on a file system that several machines share, each with process ids of its own.
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
