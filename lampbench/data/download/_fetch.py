"""Downloads LaMP's official files into a folder: resumable, and always the same bytes.

::

    FOLDER/lamp.lock.json                   size and SHA-256 of every file, from its first download on
    FOLDER/LaMP_5/dev/dev_questions.json    in place only once it is whole and checked
    FOLDER/LaMP_5/dev/dev_outputs.json.part, .part.json    an interrupted download
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lampbench.core import InputError, LampBenchError, Task, file_sha256, locked, unknown_name, write_json
from lampbench.data.download._sources import PATIENCE, Origin, Patience, open_origin
from lampbench.data.download._transfer import PartialFile, Progress, transfer

OFFICIAL_SOURCE = "https://ciir.cs.umass.edu/downloads/LaMP"
LOCK_NAME = "lamp.lock.json"

Setting = Literal["lamp-time", "lamp-user"]

_PREFIX: dict[Setting, str] = {"lamp-time": "time/", "lamp-user": ""}
# The labels of test are withheld.
_KINDS = {"train": ("questions", "outputs"), "dev": ("questions", "outputs"), "test": ("questions",)}
_ENDS = 1024
_SPACE = b" \t\r\n"


@dataclass(frozen=True)
class RemoteFile:
    """One of LaMP's files.

    Attributes:
        path: The path below the source: ``time/LaMP_2/new/dev/dev_questions.json``.
        local: The path below the folder: ``LaMP_2M/dev/dev_questions.json``.
    """

    path: str
    local: str


@dataclass(frozen=True)
class Fetched:
    """A file that is complete and checked.

    Attributes:
        local: Its path.
        bytes: Its size.
        sha256: Of its bytes.
        how: ``kept`` if it was already there; ``resumed`` if an interrupted download was completed.
    """

    local: Path
    bytes: int
    sha256: str
    how: Literal["downloaded", "resumed", "kept"]


@dataclass(frozen=True)
class _Content:
    """The size and hash that identify a file's bytes."""

    bytes: int
    sha256: str


def remote_files(setting: Setting, task: Task, splits: Sequence[str]) -> list[RemoteFile]:
    """The official files of a task's splits (``train``, ``dev``, ``test``).

    Raises:
        InputError: An unknown split, or a task that is not one of LaMP's.
    """
    name = task.official[0]
    if task.lamp_folder is None:
        raise InputError(f"there are no official files of {task.name}; its Task names no lamp_folder")
    files = []
    for split in splits:
        if split not in _KINDS:
            raise unknown_name("split", split, _KINDS)
        for kind in _KINDS[split]:
            below = f"{split}/{split}_{kind}.json"
            path = f"{_PREFIX[setting]}{task.lamp_folder}/{below}"
            files.append(RemoteFile(path, f"{name}/{below}"))
    return files


def fetch(
    files: Sequence[RemoteFile],
    folder: Path,
    *,
    source: str = OFFICIAL_SOURCE,
    progress: Progress,
    patience: Patience = PATIENCE,
) -> Iterator[Fetched]:
    """Download what is not in place yet, check everything against the lock; one file per step of the iterator.

    The source is not asked for files that are complete. An interrupted download is resumed. One folder
    holds the files of one setting.

    Args:
        files: What to fetch.
        folder: The folder; it is made if it does not exist.
        source: A URL (http, https, file) or a folder, with LaMP's official layout below.
        progress: Shows the download of each file.
        patience: Timeouts, and how often to try again.

    Raises:
        InputError: A wrong source, a damaged lock, a file in place that is not the one in the lock or is not JSON,
            no room on the disk, a folder that cannot be written.
        LampBenchError: A transfer failed, the file is not the one in the lock or is not JSON, the disk
            failed, or another process is downloading into the folder. Files in place are unchanged.
    """
    with closing(open_origin(source, patience)) as origin:
        _make(folder)
        with _alone(folder):
            lock = _Lock.read(folder / LOCK_NAME)
            lock.check_setting(files)
            for file in files:
                target = folder / file.local
                if target.exists():
                    yield _kept(target, file, lock)
                else:
                    yield _downloaded(target, file, lock, origin, progress, patience)


def check_lock(setting: Setting, task: Task, folder: Path, hashes: Mapping[str, str]) -> None:
    """Compare files that will be used with the lock file beside them.

    Args:
        setting: Whose files they are.
        task: Of which task.
        folder: Where they, and perhaps a lock file, are.
        hashes: Name below ``folder`` -> SHA-256.

    Raises:
        InputError: A file is not the one that was recorded, or the lock is damaged.
    """
    lock = _Lock.read(folder / LOCK_NAME)
    for file in remote_files(setting, task, tuple(_KINDS)):
        known, found = lock.get(file), hashes.get(file.local)
        if known and found and found != known.sha256:
            raise _differs(folder / file.local, found, known, file, lock)


def _differs(target: Path, found: str, known: _Content, file: RemoteFile, lock: _Lock) -> InputError:
    return InputError(
        f"{target}: its SHA-256 is {found[:12]}…, but {lock.path.name} says {known.sha256[:12]}…; "
        f"delete the file to fetch it again, or the entry {file.path!r} in the lock to accept it"
    )


class _Lock:
    """``lamp.lock.json``: size and hash of each official file."""

    def __init__(self, path: Path, contents: dict[str, _Content]) -> None:
        self.path = path
        self._contents = contents

    @classmethod
    def read(cls, path: Path) -> _Lock:
        """The lock in a folder, empty if the file does not exist; raises InputError if it is damaged."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(path, {})
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise cls._damaged(path, f"not JSON ({error})") from None
        if not isinstance(value, dict) or set(value) != {"files"} or not isinstance(value["files"], dict):
            raise cls._damaged(path, 'expected {"files": {…}} and nothing else')
        return cls(path, {name: cls._content(path, name, entry) for name, entry in value["files"].items()})

    @classmethod
    def _content(cls, path: Path, name: str, entry: Any) -> _Content:
        if isinstance(entry, dict) and set(entry) == {"bytes", "sha256"}:
            size, sha256 = entry["bytes"], entry["sha256"]
            is_size = isinstance(size, int) and not isinstance(size, bool) and size >= 0
            if is_size and isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256):
                return _Content(size, sha256)
        raise cls._damaged(path, f'the entry of {name!r} must be {{"bytes": …, "sha256": …}}')

    @staticmethod
    def _damaged(path: Path, reason: str) -> InputError:
        return InputError(f"{path}: damaged: {reason}; restore it, or delete it to record the files as they are now")

    def get(self, file: RemoteFile) -> _Content | None:
        return self._contents.get(file.path)

    def record(self, file: RemoteFile, content: _Content) -> None:
        """Add a file; the lock is completely on disk before this returns."""
        self._contents[file.path] = content
        write_json(self.path, {"files": {name: asdict(self._contents[name]) for name in sorted(self._contents)}})

    def check_setting(self, files: Sequence[RemoteFile]) -> None:
        """The files of both settings have the same names below a folder, so they must not share one."""
        for known in (*self._contents, *(file.path for file in files[:1])):
            for file in files:
                if _setting(known) != _setting(file.path):
                    raise InputError(
                        f"{self.path.parent} holds files of {_setting(known)} ({known}); "
                        f"fetch {_setting(file.path)} into another folder"
                    )


def _setting(path: str) -> Setting:
    return "lamp-time" if path.startswith(_PREFIX["lamp-time"]) else "lamp-user"


def _kept(target: Path, file: RemoteFile, lock: _Lock) -> Fetched:
    known = lock.get(file)
    try:
        content = _content(target)
        fault = None if known else _fault(target)
    except OSError as error:
        raise InputError(f"{target}: {error.strerror}") from None
    if fault:
        raise InputError(f"{target}: {fault}; delete the file to fetch it")
    if known is None:
        with _explained(lock.path):
            lock.record(file, content)
    elif content != known:
        raise _differs(target, content.sha256, known, file, lock)
    return Fetched(target, content.bytes, content.sha256, "kept")


def _downloaded(
    target: Path, file: RemoteFile, lock: _Lock, source: Origin, progress: Progress, patience: Patience
) -> Fetched:
    _make(target.parent)
    part = PartialFile(target)
    with progress.file(file.local) as bar:
        resumed = transfer(source, file.path, part, bar, patience)
    with _explained(target):
        content = _checked(part, file, lock, source.url(file.path))
        part.path.replace(target)
        part.discard()
        lock.record(file, content)
    return Fetched(target, content.bytes, content.sha256, "resumed" if resumed else "downloaded")


def _checked(part: PartialFile, file: RemoteFile, lock: _Lock, url: str) -> _Content:
    """Size and hash of the received file; a wrong one is deleted, and LampBenchError raised."""
    content, known, fault = _content(part.path), lock.get(file), _fault(part.path)
    if fault:
        part.discard()
        raise LampBenchError(
            f"{url}: the source sent a file that is {fault}; is --source right? The same command fetches it again"
        )
    if known and content != known:
        part.discard()
        raise LampBenchError(
            f"{url}: the SHA-256 of the received file is {content.sha256[:12]}…, but {lock.path.name} says "
            f"{known.sha256[:12]}…; it was deleted; delete the entry {file.path!r} in the lock to accept it"
        )
    return content


def _content(path: Path) -> _Content:
    return _Content(path.stat().st_size, file_sha256(path))


def _fault(path: Path) -> str | None:
    """Why a file cannot be the JSON list (questions) or object (outputs) that it should be; looks at its ends."""
    first, last = (b"[", b"]") if "_questions" in path.name else (b"{", b"}")
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        head = stream.read(_ENDS).lstrip(_SPACE)
        stream.seek(max(size - _ENDS, 0))
        tail = stream.read(_ENDS).rstrip(_SPACE)
    if not head.startswith(first):
        return f"not JSON: it begins with {_quoted(head[:160], slice(40))}" if head else "empty"
    if not tail.endswith(last):
        return f"not whole JSON: it ends with {_quoted(tail[-160:], slice(-40, None))}"
    return None


def _quoted(raw: bytes, characters: slice) -> str:
    # repr escapes control characters, which must not reach a terminal.
    return repr(raw.decode("utf-8", "replace")[characters])


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; choose another folder") from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LampBenchError(f"{path}: {error.strerror}") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from downloading into the folder, if the file system has locks."""
    with ExitStack() as lock:
        # Without permission to write, the files in place can still be checked.
        with suppress(OSError):
            lock.enter_context(locked(folder / ".lamp.lock", f"downloading into {folder}"))
        yield
