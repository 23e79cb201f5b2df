"""JSON files and folders that are written completely or not at all, hashes of JSON, and locks between processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lampbench.core._errors import LampBenchError

if sys.platform != "win32":
    import fcntl

CACHE_VARIABLE = "LAMPBENCH_CACHE"
# The errors of file systems without locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def canonical_json(value: Any) -> str:
    """``value`` as JSON with sorted keys and no spaces; refuses NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of ``value``'s canonical JSON, as hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex; raises OSError if it cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def derive_seed(seed: int, *names: str) -> int:
    """A 63-bit seed for a named purpose, independent of the seeds of other names."""
    return int(digest([seed, *names])[:16], 16) >> 1


def cache_folder() -> Path:
    """The folder for what can be downloaded or computed again (``LAMPBENCH_CACHE``, else ``~/.cache/lampbench``)."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "lampbench"


def write_json(path: Path, value: Any) -> None:
    """Write JSON completely or not at all; refuses NaN."""
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
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder that becomes ``target`` if the block succeeds, and is deleted otherwise.

    What a killed process left of the same folder is deleted first.

    Args:
        target: The folder.
        replace: Whether a folder that is there when the block ends is deleted; until then it stays as it is.

    Raises:
        OSError: ``target`` exists and is not empty when the block ends, or the file system refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{target.name[:40]}.{_host()}"
    remove_abandoned(target.parent, f"{stem}.")
    temporary = target.with_name(f"{stem}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    earlier = temporary.with_suffix(".earlier")
    temporary.mkdir()
    try:
        yield temporary
        try:
            if replace:
                with suppress(FileNotFoundError):
                    target.rename(earlier)
            temporary.rename(target)
        except BaseException:
            with suppress(OSError):
                earlier.rename(target)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Delete folders called ``prefix``, a process id, a dot and more, whose processes are gone from this machine."""
    # `lampbench doctor` must start even if it is missing.
    import psutil

    for path in folder.glob(f"{prefix}*.*"):
        pid = path.name.removeprefix(prefix).partition(".")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _host() -> str:
    # A cache may be on a file system that several machines share, and process ids are per machine.
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path``; it is free again when this process ends, however it ends.

    On a system without locks, nothing is held.

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
