"""A run's folder: what is finished stays, what is half-written is never trusted.

::

    runs/<protocol>/<task>/<method>/<run id>/
        journal.jsonl       what was done and what it cost; one JSON object a line
        predictions.jsonl   one answer a line, flushed as they come
        predictions.json    all answers in LaMP's official shape, once complete
        user_sums.json      what each user's queries add to every metric: all that statistics need
        state/shared/       the shared stage's state
        state/shared-snapshot/  how far an unfinished shared stage came
        state/users/<id>/   each user's state
        row.json            the result, written whole
        run.log             messages

A state folder is written under a temporary name and moved into place; the journal line follows.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lampbench.core import InputError, Prediction, digest

_LONGEST_NAME = 100


class RunFolder:
    """Reads and writes one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.row_path = path / "row.json"
        self.predictions_path = path / "predictions.jsonl"
        self.official_path = path / "predictions.json"
        self.sums_path = path / "user_sums.json"
        self.journal_path = path / "journal.jsonl"
        self.log_path = path / "run.log"
        self.shared_state = path / "state" / "shared"
        self.shared_snapshot = path / "state" / "shared-snapshot"

    def create(self) -> None:
        """Make the folder; raises InputError where that is not possible."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {self.path}: {error.strerror}; choose another --out") from None

    def clear(self) -> None:
        """Delete everything in the folder."""
        self.remove(self.path)

    def remove(self, folder: Path) -> None:
        """Delete a folder, if it is there."""
        if folder.exists():
            shutil.rmtree(folder)

    def user_state(self, user_id: str) -> Path:
        """Where a user's state lies. Ids come from data: no id can lead out of the folder."""
        name = quote(user_id, safe="")
        if not name or name.startswith(".") or len(name) > _LONGEST_NAME:
            name = f"sha256-{digest(user_id)[:32]}"
        return self.path / "state" / "users" / name

    @contextmanager
    def new_state(self, target: Path) -> Iterator[Path]:
        """A folder to write a state into; it becomes ``target`` when the block ends well."""
        # Apart from the finished ones: a user may be called anything.
        temporary = self.path / "state" / ".partial" / target.name
        self.remove(temporary)
        temporary.mkdir(parents=True)
        yield temporary
        target.parent.mkdir(parents=True, exist_ok=True)
        # An earlier state goes only now that the new one is whole.
        self.remove(target)
        temporary.rename(target)

    def log(self, event: dict[str, Any]) -> None:
        """Append one event to the journal."""
        _append(self.journal_path, [event])

    def journal(self) -> list[dict[str, Any]]:
        """All events so far."""
        return _read_lines(self.journal_path)

    def add_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Append answers, on disk before this returns."""
        _append(
            self.predictions_path,
            [{"id": p.query_id, "user": p.user_id, "output": p.output} for p in predictions],
        )

    def predictions(self) -> dict[str, str]:
        """Query id -> output of every answer so far."""
        return {line["id"]: line["output"] for line in _read_lines(self.predictions_path)}

    def row(self) -> dict[str, Any] | None:
        """The row, where one was written."""
        if not self.row_path.exists():
            return None
        try:
            row: dict[str, Any] = json.loads(self.row_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{self.row_path}: damaged ({error}); --force starts the run over") from None
        if not isinstance(row, dict) or "status" not in row:
            raise InputError(f"{self.row_path}: not a row; --force starts the run over")
        return row

    def message(self, text: str) -> None:
        """Append a line to the log."""
        with self.log_path.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")


def bytes_under(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


def _append(path: Path, records: Iterable[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(lines)
        stream.flush()
        os.fsync(stream.fileno())


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of lines; a last line that an interruption tore is cut off."""
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.split(b"\n") if line]
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); --force starts the run over") from None
