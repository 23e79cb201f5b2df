"""Saved state: files that a user can carry away, and that are safe to open."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from lampbench.testing._contract import broken

_PICKLE_NAMES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib"}
_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
# A numpy array of Python objects.
_OBJECT_ARRAY = (b"\x93NUMPY", b"'|O'")
_HEADER = 4096


class StateFolders:
    """Folders for states to be saved in, side by side."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: set[str] = set()

    def new(self, name: str) -> Path:
        """A new, empty one."""
        self._names.add(name)
        folder = self._root / name
        folder.mkdir()
        return folder

    def foreign(self) -> list[Path]:
        """What lies beside them."""
        return [path for path in self._root.iterdir() if path.name not in self._names]


@contextmanager
def saving(root: Path) -> Iterator[StateFolders]:
    """Let states be saved below ``root``; raises ContractError if something is written beside them.

    Inside the block the current folder and the folder of temporary files are other, empty ones.
    """
    states, elsewhere = root / "states", root / "elsewhere"
    states.mkdir()
    elsewhere.mkdir()
    folders = StateFolders(states)
    temporary = tempfile.tempdir
    tempfile.tempdir = str(elsewhere)
    try:
        with chdir(elsewhere):
            yield folders
    finally:
        tempfile.tempdir = temporary
    foreign = [*elsewhere.iterdir(), *folders.foreign(), *(set(root.iterdir()) - {states, elsewhere})]
    if foreign:
        names = ", ".join(sorted(path.name for path in foreign))
        broken(f"saving wrote {names} outside the folder that it was given; expected nothing there")


def check_files(folder: Path) -> None:
    """Raises ContractError for the first file that is a link or a pickle."""
    for path in _entries(folder):
        if fault := _fault(path):
            broken(
                f"saving wrote {path.relative_to(folder)}, {fault}; expected plain files, such as safetensors or JSON"
            )


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> content of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in _entries(folder) if path.is_file()}


def _entries(folder: Path) -> Iterator[Path]:
    """All files and links below, links to folders included, none followed."""
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        yield from (Path(parent) / name for name in sorted([*files, *links]))


def _fault(path: Path) -> str | None:
    if path.is_symlink() or path.stat().st_nlink > 1:
        return "a link to another place"
    if not path.is_file():
        return "which is no file"
    if path.suffix in _PICKLE_NAMES:
        return "by its name a pickle, which can run code when it is opened"
    return "a pickle, which can run code when it is opened" if _holds_pickle(path) else None


def _holds_pickle(path: Path) -> bool:
    with path.open("rb") as stream:
        if _is_pickle(stream.read(_HEADER)):
            return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(_is_pickle_in(archive, name) for name in archive.namelist())


def _is_pickle_in(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as stream:
        return Path(name).suffix in _PICKLE_NAMES or _is_pickle(stream.read(_HEADER))


def _is_pickle(start: bytes) -> bool:
    magic, objects = _OBJECT_ARRAY
    return start.startswith(_PICKLE_STARTS) or (start.startswith(magic) and objects in start)
