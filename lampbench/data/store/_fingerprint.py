"""The SHA-256 of large files, remembered for as long as the file system says they are unchanged."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from lampbench.core import InputError, cache_folder, digest, write_json
from lampbench.data.files import unreadable

# Smaller files are hashed each time, which takes no longer than looking up.
_SMALL = 16 << 20


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex.

    A large file's is kept in the cache together with size, inode, and the times of the last change of
    content and of the inode itself; the latter cannot be set by a program that hides a change.

    Raises:
        InputError: The file cannot be read, or changes while it is read.
    """
    try:
        stamp = _stamp(path)
        if stamp["size"] < _SMALL:
            return _hash(path)
        record = cache_folder() / "fingerprints" / f"{digest(str(path.resolve()))[:32]}.json"
        known = _remembered(record)
        if known.get("stamp") == stamp and isinstance(known.get("sha256"), str):
            return str(known["sha256"])
        sha256 = _hash(path)
        if _stamp(path) != stamp:
            raise InputError(f"{path}: changes while it is read; wait until it is written")
    except OSError as error:
        raise unreadable(path, error) from None
    # Nothing but time is lost; whoever needs the cache itself will say what is wrong with it.
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, {"path": str(path.resolve()), "stamp": stamp, "sha256": sha256})
    return sha256


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime": stat.st_mtime_ns, "ctime": stat.st_ctime_ns, "inode": stat.st_ino}


def _remembered(record: Path) -> dict[str, Any]:
    try:
        value = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
