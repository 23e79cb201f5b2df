"""The bytes of one file, from a source into a ``.part`` beside its place: resumed if that is safe, and counted.

A ``.part.json`` says which version of the file the bytes in the ``.part`` are of. Bytes are appended
only where the source confirms that it still has that version; everything else starts over.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from lampbench.core import InputError, LampBenchError, write_json
from lampbench.data.download._sources import CLOSED, Answer, BrokenError, Origin, Patience, UnfitError, Version


class Bar(Protocol):
    """Shows how much of one file has arrived."""

    def move(self, done: int, total: int | None) -> None:
        """Show ``done`` of ``total`` bytes (None: not known); a file that starts over goes back to 0."""


class Progress(Protocol):
    """Shows what is downloaded."""

    def file(self, name: str) -> AbstractContextManager[Bar]:
        """A bar for one file."""


@dataclass(frozen=True)
class PartialFile:
    """The bytes received so far of a file that will be ``target``."""

    target: Path

    @property
    def path(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def note(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> Version | None:
        """The version of ``url`` that the bytes belong to; None if they belong to another file or that is unknown."""
        try:
            version = Version(**json.loads(self.note.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return version if version.url == url and isinstance(version.total, int | None) else None

    def held(self, url: str) -> Version | None:
        """The version that the bytes belong to, or None if they cannot be resumed."""
        version = self.version(url)
        if version is None or not isinstance(version.validator, str) or not self.size():
            return None
        return version if version.total is None or self.size() <= version.total else None

    def begin(self, version: Version) -> None:
        """Start over with a version."""
        # Emptied first: a note must never describe another version's bytes.
        self.path.write_bytes(b"")
        write_json(self.note, asdict(version))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def transfer(source: Origin, path: str, part: PartialFile, bar: Bar, patience: Patience) -> bool:
    """Receive all bytes of a file in ``part``, with further attempts as long as they make progress.

    Returns:
        Whether bytes of an earlier attempt, or of an earlier command, were kept.

    Raises:
        InputError: The source has no such file, or the disk has no room for it.
        LampBenchError: The transfer failed; the message says how far it came and what helps.
    """
    url = source.url(path)
    furthest = part.size() if part.held(url) else 0
    fruitless = 0
    resumable = True
    while True:
        held = part.held(url) if resumable else None
        if held and held.total == part.size():
            return True
        try:
            with source.ask(path, part.size() if held else 0, held) as answer:
                _receive(answer, part, bar)
                return answer.start > 0
        except UnfitError as error:
            if not resumable:
                raise LampBenchError(f"{url}: {error}, though the whole file was asked for") from None
            resumable = False
        except BrokenError as error:
            fruitless = 0 if part.size() > furthest else fruitless + 1
            furthest = max(furthest, part.size())
            if error.hopeless or fruitless > len(patience.waits):
                raise _failure(error, url, part) from None
            time.sleep(patience.waits[max(fruitless, 1) - 1] if patience.waits else 0)


def _receive(answer: Answer, part: PartialFile, bar: Bar) -> None:
    total = answer.version.total
    _check_room(part, total)
    try:
        if answer.start == 0:
            part.begin(answer.version)
        with part.path.open("ab") as stream:
            done = _write(answer, stream, bar)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise LampBenchError(
            f"{part.path}: {error.strerror or error}; the bytes so far are kept, and the same command resumes"
        ) from None
    if total is not None and done > total:
        part.discard()
        raise LampBenchError(f"{answer.version.url}: more bytes were sent than the {total:,} that were announced")
    if total is not None and done < total:
        raise BrokenError(CLOSED)


def _write(answer: Answer, stream: BinaryIO, bar: Bar) -> int:
    done, total = answer.start, answer.version.total
    bar.move(done, total)
    for chunk in answer.chunks:
        stream.write(chunk)
        done += len(chunk)
        if total is not None and done > total:
            break
        bar.move(done, total)
    return done


def _check_room(part: PartialFile, total: int | None) -> None:
    needed = (total or 0) - part.size()
    free = shutil.disk_usage(part.path.parent).free
    if needed > free:
        raise InputError(f"{part.target}: needs {needed:,} more bytes on a disk that has {free:,} free")


def _failure(error: BrokenError, url: str, part: PartialFile) -> LampBenchError:
    size, held = part.size(), part.held(url)
    kept = f"; {size:,} bytes are here, the same command resumes there" if held else ""
    if not error.reached:
        return LampBenchError(
            f"cannot reach {url}: {error}; fetch the file elsewhere and put it at {part.target}, "
            f"or name a mirror or a folder with --source{kept}"
        )
    if error.status:
        return LampBenchError(f"{url}: {error}; try again later{kept}")
    version = part.version(url)
    total = f" of {version.total:,}" if version and version.total is not None else ""
    again = "the same command resumes there" if held else "the same command tries again"
    return LampBenchError(f"{url}: {size:,}{total} bytes were received, then: {error}; {again}")
