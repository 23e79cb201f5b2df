"""A run's folder: what is finished stays, what is half-written is never trusted.

::

    runs/<protocol>/<task>/<method>/<run id>/
        journal.jsonl       what was done and what it cost; one JSON object per line
        predictions.jsonl   one answer per line, flushed as they come
        replies.jsonl       what a served model replied to each request, flushed as they come
        predictions.json    all answers in LaMP's official shape, once complete
        user_sums.json      what each user's queries add to every metric: all that statistics need
        state/shared/       the shared stage's state
        state/shared-snapshot/  how far an unfinished shared stage came
        state/users/<id>/   each user's state, and a README for people
        row.json            the result, written whole
        task.json           the task, if a file described it: other commands find it here
        rescored.json       scores by other metrics, added later by lampbench rescore
        run.log             messages
        run.lock            held by the process that works on the run

A state folder is written under a temporary name and moved into place; the journal line follows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import msgspec

from lampbench.core import InputError, digest, locked, write_json
from lampbench.rows import RowError, RunRow, TakenStage, read_run_row
from lampbench.runner._failures import storing

if TYPE_CHECKING:
    from lampbench.runner._record import RunRecord
    from lampbench.runner._replies import Replies

StateKind = Literal["shared", "snapshot", "user"]

# In a state's folder, for people.
CARD = "README.md"
_LONGEST_NAME = 100


class RunFolder:
    """Where a run's files are, and what they contain."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.row_path = path / "row.json"
        self.predictions_path = path / "predictions.jsonl"
        self.replies_path = path / "replies.jsonl"
        self.official_path = path / "predictions.json"
        self.sums_path = path / "user_sums.json"
        self.journal_path = path / "journal.jsonl"
        self.log_path = path / "run.log"
        self.lock_path = path / "run.lock"
        # Not among the finished states: a user may have any name.
        self.unfinished = path / "state" / ".partial"
        self.shared_state = path / "state" / "shared"
        self.shared_snapshot = path / "state" / "shared-snapshot"

    @contextmanager
    def held(self, *, force: bool = False) -> Iterator[RunRecord]:
        """The folder for this process alone, read and ready to be written; ``force`` deletes what is in it first.

        Raises:
            InputError: The folder cannot be made, or a file in it is damaged.
            LampBenchError: It cannot be written, or another process works on the run.
        """
        from lampbench.runner._record import RunRecord

        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {self.path}: {error.strerror}; choose another --out") from None
        with ExitStack() as lock:
            with storing(self.path):
                lock.enter_context(locked(self.lock_path, f"working on the run in {self.path}"))
            yield RunRecord(self.path, force=force)

    def state(self, kind: StateKind, user_id: str = "") -> Path:
        """The folder of a state; ``user_id`` says whose, if it is a user's."""
        if kind == "user":
            return self.user_state(user_id)
        return self.shared_state if kind == "shared" else self.shared_snapshot

    def user_state(self, user_id: str) -> Path:
        """The folder of a user's state. Ids come from data: no id can point outside the run's folder."""
        name = quote(user_id, safe="")
        if not name or name.startswith(".") or len(name) > _LONGEST_NAME:
            # No quoted id looks like this.
            name = f"sha256={digest(user_id)[:32]}"
        return self.path / "state" / "users" / name

    def journal(self) -> list[dict[str, Any]]:
        """All events so far; raises InputError if one is damaged."""
        events: list[dict[str, Any]] = []
        for number, line in enumerate(read_lines(self.journal_path, ["event"]), start=1):
            for event in (line, *_events_of_workers(line)):
                try:
                    msgspec.convert(event, _EVENTS.get(str(event.get("event")), _Event))
                except msgspec.ValidationError as error:
                    kind = event.get("event") if isinstance(event, dict) else event
                    raise InputError(
                        f"{self.journal_path}: damaged in line {number} (the event {kind!r}: {error}); --force starts "
                        "the run over"
                    ) from None
                events.append(event)
        return events

    def predictions(self) -> dict[str, str]:
        """Query id -> output of every answer so far; raises InputError if one is damaged or occurs twice."""
        answers: dict[str, str] = {}
        for number, line in enumerate(read_lines(self.predictions_path, ["id", "user", "output"]), start=1):
            if not (isinstance(line["id"], str) and isinstance(line["output"], str)) or line["id"] in answers:
                raise InputError(
                    f"{self.predictions_path}: damaged in line {number} (expected the first answer to a query, as "
                    f"strings); --force starts the run over"
                )
            answers[line["id"]] = line["output"]
        return answers

    def replies(self) -> Replies:
        """The replies of a served model so far; raises InputError if one is damaged."""
        # Runs without a language model do not wait for this import.
        from lampbench.runner._replies import Replies

        return Replies(self.replies_path)

    def row(self) -> RunRow | None:
        """The row, if one was written."""
        if not self.row_path.exists():
            return None
        try:
            return read_run_row(self.row_path)
        except RowError as error:
            raise InputError(f"{self.row_path}: damaged ({error.faults[0]}); --force starts the run over") from None

    def write(self, path: Path, value: Any) -> None:
        """Write one of the folder's JSON files, completely or not at all."""
        with storing(path):
            write_json(path, value)

    def message(self, text: str) -> None:
        """Append a line to the log, if that is possible."""
        with suppress(OSError), self.log_path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text + "\n")


def state_bytes(state: Path) -> int:
    """Bytes of all files of a state; its README, which nothing reads, does not count."""
    files = (path for path in state.rglob("*") if path.is_file() and path != state / CARD)
    return sum(path.stat().st_size for path in files) if state.exists() else 0


# --- what each kind of event must have for a run to be resumed from it

_Amount = Annotated[float, msgspec.Meta(ge=0, lt=1e15)]
_Counts = dict[str, Annotated[int, msgspec.Meta(ge=0)] | None]


class _Event(msgspec.Struct):
    event: str


class _SessionStart(_Event):
    time: str


class _SessionEnd(_Event):
    untracked: Annotated[float, msgspec.Meta(gt=-1e15, lt=1e15)]
    elapsed: _Amount = 0.0


class _Measured(_Event):
    seconds: _Amount
    memory: _Counts
    tokens: _Counts


class _Trained(_Measured):
    optimizer_parameters: Annotated[int, msgspec.Meta(ge=0)] | None


class _Fitted(_Trained):
    # Of a shared stage that another run trained.
    taken: TakenStage | None = None


class _Adapted(_Trained):
    users: list[str]
    data: dict[str, str] = {}


class _Check(msgspec.Struct):
    passed: bool | None


class _Shard(_Event):
    at: _Amount
    parameters: _Counts
    checks: dict[str, _Check]
    guarded: list[str]


_EVENTS: Mapping[str, type[_Event]] = {
    "session_start": _SessionStart,
    "session_end": _SessionEnd,
    "shard": _Shard,
    **dict.fromkeys(("load", "predict", "score", "swap", "check"), _Measured),
    "fit_shared": _Fitted,
    "adapt": _Adapted,
}


def _events_of_workers(line: Mapping[str, Any]) -> list[Any]:
    """Events that a worker of the first release wrote; they are inside their shard's line."""
    own = line.get("events", []) if line["event"] == "shard" else []
    return own if isinstance(own, list) and all(isinstance(event, dict) for event in own) else [{"event": None}]


# --- files of JSON lines, which only grow


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append records, on disk before this returns; if that fails, none of them is left in the file.

    Raises:
        OSError: The file system refuses.
    """
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
    with path.open("ab", buffering=0) as stream:
        before = stream.seek(0, os.SEEK_END)
        try:
            view = memoryview(lines)
            while view:
                view = view[stream.write(view) :]
            os.fsync(stream.fileno())
        except BaseException:
            # The next record would become part of half a line.
            stream.truncate(before)
            raise


def read_lines(path: Path, fields: Iterable[str]) -> list[dict[str, Any]]:
    """The records of all complete lines; a last line that was interrupted is left out.

    Args:
        path: The file; without it there are no records.
        fields: What every record must have.

    Raises:
        InputError: A whole line is not a JSON object with these fields.
    """
    if not path.exists():
        return []
    needed = set(fields)
    records = []
    for number, line in enumerate(_whole(path.read_bytes()).split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, number, str(error)) from None
        if not isinstance(record, dict) or not needed <= set(record):
            raise _damaged(path, number, f"expected an object with {', '.join(sorted(needed))}")
        records.append(record)
    return records


def mend_lines(path: Path) -> None:
    """Cut off an incomplete last line. Only for the one process that writes the file."""
    if not path.exists():
        return
    raw = path.read_bytes()
    whole = _whole(raw)
    if len(whole) < len(raw):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))


def _whole(raw: bytes) -> bytes:
    return raw[: raw.rfind(b"\n") + 1]


def _damaged(path: Path, number: int, cause: str) -> InputError:
    return InputError(f"{path}: damaged in line {number} ({cause}); --force starts the run over")
