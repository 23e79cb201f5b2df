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
        run.lock            held by the process that works on the run

A state folder is written under a temporary name and moved into place; the journal line follows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lampbench.core import InputError, Prediction, digest, locked, write_json
from lampbench.rows import RowError, RunRow, read_run_row
from lampbench.runner._lines import append_lines, mend_lines, read_lines
from lampbench.runner._storage import storing

_LONGEST_NAME = 100
_ABSENT = object()


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _is_amount(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, int) and _is_amount(value))


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_optional_amount(value: Any) -> bool:
    return value is _ABSENT or _is_amount(value)


def _is_checks(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(check, dict) and "passed" in check for check in value.values())


def _is_digests(value: Any) -> bool:
    return value is _ABSENT or (isinstance(value, dict) and all(map(_is_text, value.values())))


_MEASURED = {"seconds": _is_amount, "memory": _is_counts, "tokens": _is_counts}
_TRAINED = {**_MEASURED, "optimizer_parameters": _is_count}
# What each kind of event must have for a run to go on from it.
_EVENTS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    "session_start": {"time": _is_text},
    "session_end": {"untracked": _is_number, "elapsed": _is_optional_amount},
    # What a worker did of the run; its own events follow.
    "shard": {"id": _is_text, "at": _is_amount, "parameters": _is_counts, "checks": _is_checks, "guarded": _is_names},
    **dict.fromkeys(("load", "predict", "score", "swap", "check"), _MEASURED),
    "fit_shared": _TRAINED,
    "adapt": {**_TRAINED, "users": _is_names, "data": _is_digests},
}


def _with_workers_events(line: dict[str, Any]) -> list[dict[str, Any]]:
    own = line.get("events", []) if line["event"] == "shard" else []
    usable = isinstance(own, list) and all(isinstance(event, dict) for event in own)
    return [line, *(own if usable else [{"event": "shard"}])]


def _wrong_field(event: Mapping[str, Any]) -> str | None:
    """The first field that is not as its kind of event needs it."""
    if "event" not in event:
        return "event"
    needed = _EVENTS.get(str(event["event"]), {})
    return next((field for field, fits in needed.items() if not fits(event.get(field, _ABSENT))), None)


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
        self._lock_path = path / "run.lock"
        # Apart from the finished states: a user may be called anything.
        self._unfinished = path / "state" / ".partial"
        self.shared_state = path / "state" / "shared"
        self.shared_snapshot = path / "state" / "shared-snapshot"
        self.shards_path = path / "shards"

    def create(self) -> None:
        """Make the folder; raises InputError where that is not possible."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {self.path}: {error.strerror}; choose another --out") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder for this process alone; lines that an interruption tore are mended.

        Raises:
            InputError: The folder cannot be made.
            LampBenchError: It cannot be written; or another process works on the run.
        """
        self.create()
        with ExitStack() as lock:
            with storing(self.path):
                lock.enter_context(locked(self._lock_path, f"working on the run in {self.path}"))
                mend_lines(self.journal_path)
                mend_lines(self.predictions_path)
            yield

    def clear(self) -> None:
        """Delete everything in the folder but the lock."""
        with storing(self.path):
            for path in self.path.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path != self._lock_path:
                    path.unlink()

    def remove_shards(self) -> None:
        """Delete what workers made and nobody took in."""
        shutil.rmtree(self.shards_path, ignore_errors=True)

    def remove_state(self, state: Path) -> None:
        """Delete a state folder, if it is there: all of it at once, for whoever looks."""
        if state.exists():
            gone = self._unfinished / f"{state.name}.gone"
            shutil.rmtree(gone, ignore_errors=True)
            gone.parent.mkdir(parents=True, exist_ok=True)
            state.rename(gone)
            shutil.rmtree(gone)

    def user_state(self, user_id: str) -> Path:
        """Where a user's state lies. Ids come from data: no id can lead out of the folder."""
        name = quote(user_id, safe="")
        if not name or name.startswith(".") or len(name) > _LONGEST_NAME:
            # Not what any id could be quoted as.
            name = f"sha256={digest(user_id)[:32]}"
        return self.path / "state" / "users" / name

    @contextmanager
    def new_state(self, target: Path) -> Iterator[Path]:
        """A folder to write a state into; it becomes ``target`` when the block ends well."""
        temporary = self._unfinished / target.name
        with storing(target):
            if temporary.exists():
                shutil.rmtree(temporary)
            temporary.mkdir(parents=True)
            yield temporary
            target.parent.mkdir(parents=True, exist_ok=True)
            # An earlier state goes only now that the new one is whole.
            self.remove_state(target)
            temporary.rename(target)

    def log(self, event: dict[str, Any]) -> None:
        """Append one event to the journal."""
        with storing(self.journal_path):
            append_lines(self.journal_path, [event])

    def journal(self) -> list[dict[str, Any]]:
        """All events so far, those of workers after their shard; raises InputError where one is damaged."""
        events: list[dict[str, Any]] = []
        for number, line in enumerate(read_lines(self.journal_path, ["event"]), start=1):
            for event in _with_workers_events(line):
                wrong = _wrong_field(event)
                if wrong is not None:
                    raise InputError(
                        f"{self.journal_path}: damaged in line {number} (the event {event.get('event')!r} has no "
                        f"usable {wrong!r}); --force starts the run over"
                    )
                events.append(event)
        return events

    def add_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Append answers, on disk before this returns."""
        records = [{"id": p.query_id, "user": p.user_id, "output": p.output} for p in predictions]
        with storing(self.predictions_path):
            append_lines(self.predictions_path, records)

    def order_predictions(self, query_ids: Iterable[str]) -> None:
        """Bring all answers into an order; the file is whole at any time."""
        lines = read_lines(self.predictions_path, ["id"])
        by_id = {line["id"]: line for line in lines}
        ordered = [by_id[query_id] for query_id in query_ids]
        if ordered != lines:
            temporary = self.predictions_path.with_suffix(".ordered")
            with storing(self.predictions_path):
                temporary.unlink(missing_ok=True)
                append_lines(temporary, ordered)
                temporary.replace(self.predictions_path)

    def predictions(self) -> dict[str, str]:
        """Query id -> output of every answer so far; raises InputError where one is damaged or there twice."""
        answers: dict[str, str] = {}
        for number, line in enumerate(read_lines(self.predictions_path, ["id", "user", "output"]), start=1):
            if not (isinstance(line["id"], str) and isinstance(line["output"], str)) or line["id"] in answers:
                raise InputError(
                    f"{self.predictions_path}: damaged in line {number} (expected the first answer to a query, as "
                    f"strings); --force starts the run over"
                )
            answers[line["id"]] = line["output"]
        return answers

    def row(self) -> RunRow | None:
        """The row, where one was written."""
        if not self.row_path.exists():
            return None
        try:
            return read_run_row(self.row_path)
        except RowError as error:
            raise InputError(f"{self.row_path}: damaged ({error.faults[0]}); --force starts the run over") from None

    def write(self, path: Path, value: Any) -> None:
        """Write one of the folder's JSON files, whole or not at all."""
        with storing(path):
            write_json(path, value)

    def message(self, text: str) -> None:
        """Append a line to the log, where that is possible."""
        with suppress(OSError), self.log_path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text + "\n")


def bytes_under(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
