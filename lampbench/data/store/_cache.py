"""Stored splits, named by what is in their files, and the remembered SHA-256 of large files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lampbench.core import (
    CACHE_VARIABLE,
    InputError,
    Task,
    cache_folder,
    digest,
    file_sha256,
    first_line,
    new_folder,
    write_json,
)
from lampbench.data.files import Source, unreadable
from lampbench.data.store._convert import CONVERTER_VERSION, convert, open_split
from lampbench.data.store._split import Split


def stored_split(
    sources: Sequence[Source], task: Task, *, cached: bool, say: Callable[[str], None], tolerate: float = 0.0
) -> Split:
    """The split that ``sources`` hold: from the cache, or converted now and kept there.

    Args:
        sources: Files, read one after another.
        task: Whose records they hold.
        cached: False keeps the tables in memory and the cache untouched.
        say: Gets a line when something takes long.
        tolerate: The share of records that may be set aside because they cannot be read.

    Raises:
        InputError: A file is wrong, more records than that are, or the cache cannot be written. Nothing is left in the
            cache then.
    """
    paths = {name: path for source in sources for name, path in source.files().items()}
    hashes = {name: _sha256(Path(path)) for name, path in paths.items()}
    if not cached:
        return convert(sources, task, hashes, None, None, tolerate)
    key = digest([CONVERTER_VERSION, *task.edition, hashes])
    folder = cache_folder() / "splits" / key
    split = open_split(folder, key)
    if split is not None:
        # It may have been stored by a run that tolerated more.
        split.facts.reading.check(tolerate, paths)
        return split
    size = sum(Path(path).stat().st_size for path in paths.values())
    if size > 100e6:
        say(f"converting {size / 1e6:,.0f} MB of {task.name} once into {folder.parent}")
    try:
        with new_folder(folder) as partial:
            convert(sources, task, hashes, partial, key, tolerate)
            _check_unchanged(paths, hashes)
            if folder.exists() and open_split(folder, key) is None:
                # It is of another version of the converter, or damaged.
                shutil.rmtree(folder)
    except OSError as error:
        # Another process may have been faster.
        split = open_split(folder, key)
        if split is not None:
            return split
        reason = os.strerror(error.errno) if error.errno else first_line(error)
        raise InputError(
            f"cannot write the cache {folder.parent}: {reason}; free some space, or name another folder "
            f"by --cache or {CACHE_VARIABLE}"
        ) from None
    split = open_split(folder, key)
    if split is None:
        raise InputError(f"the cache {folder} cannot be read back; delete it and try again")
    return split


def _check_unchanged(paths: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    """What was read must be what the hashes name."""
    for name, path in paths.items():
        if _sha256(Path(path)) != hashes[name]:
            raise InputError(f"{path}: changed while it was read; wait until it is written, and try again")


# Smaller files are hashed each time, which takes no longer than looking up.
_SMALL = 16 << 20


def _sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex.

    A large file's is kept in the cache together with size, inode, and the times of the last change of
    content and of the inode itself; the latter cannot be set by a program that hides a change.

    Raises:
        InputError: The file cannot be read, or changes while it is read.
    """
    try:
        stamp = _stamp(path)
        if stamp["size"] < _SMALL:
            return file_sha256(path)
        record = cache_folder() / "fingerprints" / f"{digest(str(path.resolve()))[:32]}.json"
        known = _remembered(record)
        if known.get("stamp") == stamp and isinstance(known.get("sha256"), str):
            return str(known["sha256"])
        sha256 = file_sha256(path)
        if _stamp(path) != stamp:
            raise InputError(f"{path}: changes while it is read; wait until it is written")
    except OSError as error:
        raise unreadable(path, error) from None
    # Without a record the file is hashed again; an error of the cache is reported when a split is stored.
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
