"""Stored splits, named by what is in their files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lampbench.core import CACHE_VARIABLE, InputError, Task, cache_folder, digest, new_folder
from lampbench.data.files import Source
from lampbench.data.store._convert import CONVERTER_VERSION, convert, open_split
from lampbench.data.store._fingerprint import file_sha256
from lampbench.data.store._split import Split


def stored_split(sources: Sequence[Source], task: Task, *, cached: bool, say: Callable[[str], None]) -> Split:
    """The split that ``sources`` tell of: from the cache, or converted now and kept there.

    Args:
        sources: Files, read one after another.
        task: Whose records they hold.
        cached: False keeps the tables in memory and the cache untouched.
        say: Gets a line when something takes long.

    Raises:
        InputError: A file or record is wrong, or the cache cannot be written. Nothing is left in the
            cache then.
    """
    paths = {name: path for source in sources for name, path in source.files().items()}
    hashes = {name: file_sha256(Path(path)) for name, path in paths.items()}
    if not cached:
        return convert(sources, task, hashes, None, None)
    key = digest([CONVERTER_VERSION, task.name, task.version, hashes])
    folder = cache_folder() / "splits" / key
    split = open_split(folder, key)
    if split is not None:
        return split
    size = sum(Path(path).stat().st_size for path in paths.values())
    if size > 100e6:
        say(f"converting {size / 1e6:,.0f} MB of {task.name} once into {folder.parent}")
    try:
        with new_folder(folder) as partial:
            convert(sources, task, hashes, partial, key)
            _check_unchanged(paths, hashes)
            if folder.exists() and open_split(folder, key) is None:
                # Of another version of the converter, or damaged.
                shutil.rmtree(folder)
    except OSError as error:
        # Another process may have been faster.
        split = open_split(folder, key)
        if split is not None:
            return split
        reason = os.strerror(error.errno or 0)
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
        if file_sha256(Path(path)) != hashes[name]:
            raise InputError(f"{path}: changed while it was read; wait until it is written, and try again")
