"""One run, from what its folder holds to its row: which units are missing, and what comes of those that are done."""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import lampbench
from lampbench.core import InputError, Parameters, Prediction, keep_task
from lampbench.metrics import Score, official_values, score, score_sums
from lampbench.rows import RunRow
from lampbench.runner._card import state_card
from lampbench.runner._checks import data_checks
from lampbench.runner._environment import command_line
from lampbench.runner._failures import StorageError, cause, storing
from lampbench.runner._folder import CARD, RunFolder, StateKind
from lampbench.runner._plan import Plan
from lampbench.runner._record import RunRecord
from lampbench.runner._row import finished_row, now, open_row
from lampbench.runner._stages import StoredStage
from lampbench.runner._units import Missing, UnitKind, Waiting, adapts_users
from lampbench.trackers import TrackedRun, Tracking

# Attempts at a unit that a worker of another process does.
ATTEMPTS = 3
_NAMED_USERS = 5
_Unfinished = Literal["failed", "incomplete"]
_PHASES = {"fit": "fit_shared", "shard": "adapt", "ask": "swap"}


class Bar(Protocol):
    """A progress bar."""

    def move(self, done: int, total: int) -> None:
        """Show ``done`` of ``total``."""


class Whole(Protocol):
    """The progress of a command with several runs."""

    def move(self, done: float, name: str) -> None:
        """Show that so many runs are done, the one called ``name`` in part."""


class Reporter(Protocol):
    """Where a run shows its progress."""

    def runs(self, total: int) -> AbstractContextManager[Whole]:
        """A line for a command with so many runs."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Bar]:
        """A bar for one phase."""

    def say(self, text: str) -> None:
        """A line for the user."""


class Run:
    """One run, whose folder this process holds.

    An executor gives out the units in ``waiting``, hands their results to ``sink``, and reports each unit
    as ``done`` or ``missed``, until there is a ``row``.

    Args:
        plan: The run.
        record: Its folder.
        say: Gets lines for the user.
        workers: How many share the work.
        where: The environment of the workers; None if this process does the work.
        shared: Where other runs may have stored the shared stage; None if it is not shared.

    Attributes:
        waiting: Units that can be given out now.
        running: Those that were, by name.
        shares: How much of each running unit is done.
        asked: Answers of units that only ask, by unit; no file has them.
        row: Once the run has ended.
        phase, stage: The phase, and the kind, of the unit that was given out last.
    """

    def __init__(
        self,
        plan: Plan,
        record: RunRecord,
        say: Callable[[str], None],
        *,
        workers: int = 1,
        where: Mapping[str, Any] | None = None,
        shared: StoredStage | None = None,
    ) -> None:
        self.plan = plan
        self.record = record
        self.say = say
        self.name = f"{plan.task.name} {plan.method}"
        self.waiting: list[Waiting] = []
        self.running: dict[str, Waiting] = {}
        self.shares: dict[str, float] = {}
        self.row: RunRow | None = None
        self.phase = "load"
        self.stage: UnitKind | None = None
        self._where = where
        self._shared = shared
        self.asked: dict[str, Mapping[str, str]] = {}
        self._tracking = Tracking(plan.settings.track, self._warn)
        self._missing = Missing(plan, record, workers, self.asked)
        self._attempts: Counter[str] = Counter()
        self._failures: list[tuple[Waiting, str]] = []
        self._started: float | None = None
        self._tracked = self._stage_work = 0.0
        self._succeeded = self._hopeless = self._stopped = False
        self._advance()

    @property
    def needs(self) -> Path | None:
        """The place of the shared stage that this run is about to train; None if it is not, or if nobody shares it."""
        waits = any(unit.kind == "fit" for unit in self.waiting)
        return self._shared.folder if waits and self._shared is not None else None

    @property
    def trains(self) -> Path | None:
        """The place of the shared stage that this run is training; None as above."""
        runs = any(unit.kind == "fit" for unit in self.running.values())
        return self._shared.folder if runs and self._shared is not None else None

    def take_shared(self) -> bool:
        """Take the shared stage that is waiting from another run, if one has trained it; to be tried before ``give``.

        A run that has begun to train it continues instead: what that cost is in its journal.
        """
        if self._shared is None or self.needs is None or self.record.shared_snapshot.exists():
            return False
        state = self.record.unfinished / "shared"
        try:
            taken = self._shared.take(state)
        except InputError as error:
            self._warn(f"{error}; it is trained again")
            return False
        if taken is None:
            return False
        self._begin()
        self.phase, self.stage = _PHASES["fit"], "fit"
        self.sink("fit").keep("shared", state)
        self.record.log(*taken.events)
        self.say(
            f"{self.name}: takes the shared stage of run {taken.origin.run_id}, where it took {taken.seconds:.1f} s"
        )
        self.waiting.clear()
        self._advance()
        return True

    def give(self) -> Waiting:
        """The waiting unit with the most work, which is now running."""
        self._begin()
        unit = max(self.waiting, key=lambda unit: unit.work)
        self.waiting.remove(unit)
        self.running[unit.name] = unit
        self.phase, self.stage = _PHASES[unit.kind], unit.kind
        return unit

    def sink(self, name: str) -> UnitSink:
        """Takes the results of a unit into the run's folder."""
        return UnitSink(self, name)

    def done(self, name: str) -> None:
        """A unit is done, and its results were taken."""
        if self.running.pop(name).kind == "fit":
            self._store_shared()
        self.shares.pop(name, None)
        self._succeeded = True
        self._advance()

    def missed(self, name: str, reason: str, details: str = "", *, hopeless: bool = False) -> None:
        """A unit failed; it waits for another worker unless it has failed too often.

        Args:
            name: The unit's.
            reason: In one line, for the row: it does not say where it happened.
            details: For the run's log.
            hopeless: Unless another unit succeeded, none will.
        """
        unit = self.running.pop(name)
        self.shares.pop(name, None)
        self.record.message(f"{name} failed (users: {', '.join(unit.users) or 'none'}): {details or reason}")
        self._attempts[name] += 1
        if self._attempts[name] < ATTEMPTS and not self._stopped:
            self.waiting.append(unit)
            return
        self._failures.append((unit, reason))
        if unit.kind == "fit" or (hopeless and not self._succeeded):
            self._hopeless = True
            self.waiting.clear()
        self._advance()

    def interrupt(self) -> None:
        """Give out no more units; the run ends when the running ones end."""
        self._stopped = True
        self.waiting.clear()
        self._advance()

    def fail(self, error: BaseException, phase: str) -> None:
        """End the run now, even if units are running."""
        self.waiting.clear()
        self.running.clear()
        text = cause(error, phase)
        self.record.message("".join(traceback.format_exception(error)))
        # What a method that ran out of memory holds is needed to write the row.
        traceback.clear_frames(error.__traceback__)
        self._end("failed", text)
        self.say(f"{self.name}: failed: {text} (details: {self.record.log_path})")
        logging.getLogger("lampbench").debug("run failed", exc_info=error)

    @property
    def result(self) -> RunRow:
        """The row of a run that has ended."""
        if self.row is None:
            raise RuntimeError(f"{self.name} has not ended")
        return self.row

    @property
    def elapsed(self) -> float:
        """Seconds since the first unit was given out."""
        return 0.0 if self._started is None else time.perf_counter() - self._started

    @property
    def whole_progress(self) -> float:
        """About the share that is done of the whole run: each stage counts as much as any other."""
        stages = self._missing.stages
        ahead = stages[stages.index(self.stage) :] if self.stage in stages else stages
        return max(0.0, 1 - (len(ahead) - self.progress) / len(stages)) if self.stage else 0.0

    @property
    def progress(self) -> float:
        """The share that is done of the units given out since the last of the stage before was done."""
        left = sum(unit.work for unit in self.waiting)
        left += sum(unit.work * (1 - self.shares.get(name, 0.0)) for name, unit in self.running.items())
        return 1 - left / max(self._stage_work, left, 1e-9)

    def log(self, event: dict[str, Any]) -> None:
        """Write an event to the journal."""
        self._tracked += event.get("seconds", 0.0) - event.get("charged", 0.0)
        if event["event"] == "shard":
            event["at"] = self.elapsed
        self.record.log(event)
        self._tell(lambda tracking: tracking.phase(event))

    def _tell(self, what: Callable[[Tracking], None]) -> None:
        """Tell the trackers something; their time is not the run's."""
        before = self._tracking.seconds
        what(self._tracking)
        self._tracked += self._tracking.seconds - before

    def _tracked_run(self) -> TrackedRun:
        plan, data = self.plan, self.plan.dataset
        licence = None if data.licence is None else data.licence.name
        return TrackedRun(plan.run_id, plan.identity, len(data.evaluated), len(data.golds), data.label, licence)

    def _store_shared(self) -> None:
        """Let other runs take the shared stage; this run itself does not need that."""
        if self._shared is not None:
            try:
                self._shared.store(self.record)
            except OSError as error:
                self._warn(f"its shared stage cannot be stored for other runs: {error}")

    def _warn(self, text: str) -> None:
        self.say(f"{self.name}: {text}")
        self.record.message(text)

    def _begin(self) -> None:
        """Begin the session when it does something; until then the run waits for others of its command."""
        if self._started is not None:
            return
        self._started = time.perf_counter()
        if self.record.journal():
            self.say(f"{self.name}: resumes: {self._done_text}")
        with storing(self.record.path):
            keep_task(self.plan.task, self.record.path)
        self._tell(lambda tracking: tracking.plan(self._tracked_run))
        self.log({"event": "session_start", "time": now()})
        self.record.message(f"{now()} session with lampbench {lampbench.__version__}: {' '.join(command_line())}")
        # The data was read before the session began.
        seconds = self.plan.data_seconds
        self.log({"event": "load", "seconds": seconds, "charged": seconds, "memory": {}, "tokens": {}})

    def _advance(self) -> None:
        """Find the next units, or end the run if nothing of it is waiting or running."""
        if self.row is not None or self.waiting or self.running:
            return
        if self._stopped:
            self._interrupted()
        elif self._failures:
            self._given_up()
        else:
            self.waiting = self._missing.units()
            self._stage_work = sum(unit.work for unit in self.waiting)
            if not self.waiting:
                self._finish()

    def _interrupted(self) -> None:
        if self._started is None:
            # Nothing was done, so nothing is written.
            self.row = self.record.row() or self._open("incomplete")
            return
        self._end("incomplete")
        self.say(f"{self.name}: interrupted: {self._done_text}; repeat the command to resume")

    @property
    def _done_text(self) -> str:
        record, data = self.record, self.plan.dataset
        queries = f"{len(record.predictions())} of {len(data.golds)} queries are done"
        if not adapts_users(self.plan.method_type):
            return queries
        return f"{len(record.adapted)} of {len(data.evaluated)} users and {queries}"

    def _given_up(self) -> None:
        status: _Unfinished = "failed"
        reason = self._failures[0][1]
        users = [user for unit, _ in self._failures for user in unit.users]
        if users and not self._hopeless:
            status = "incomplete"
            reason = f"{len(users)} users failed three times ({_named(users)}): {reason}; the same command tries again"
        self._end(status, reason)
        self.say(f"{self.name}: {status}: {reason} (details: {self.record.log_path})")

    def _end(self, status: _Unfinished, error: str | None = None) -> None:
        """Write the row of a run that was not finished."""
        self._log_end()
        self.row = self._open(status, error)
        self.record.write(self.record.row_path, self.row.to_json())
        self._tracking.row(self.row)

    def _open(self, status: _Unfinished, error: str | None = None) -> RunRow:
        return open_row(self.plan, self.plan.dataset, self.record, status, error, self._where)

    def _finish(self) -> None:
        self._begin()
        try:
            row = self._scored()
        except StorageError:
            raise
        except Exception as error:  # a third party's metric
            self.fail(error, "score")
            return
        self.record.write(self.record.row_path, row.to_json())
        self.row = row
        self._tracking.row(row)

    def _scored(self) -> RunRow:
        missing, data = self._missing, self.plan.dataset
        scores = self._score()
        adapts = adapts_users(self.plan.method_type)
        adapted = [event for event in self.record.journal() if event["event"] == "adapt"] if adapts else None
        joint = self._joint_data() if self.plan.joint else None
        checks = data_checks(data, adapted, joint) | missing.checks
        swapped = missing.swapped
        swap_scores = None if swapped is None else score(self.plan.task, *self._columns(swapped))
        self._log_end()
        parameters = missing.parameters or Parameters()
        return finished_row(self.plan, data, self.record, parameters, scores, swap_scores, checks, self._where)

    def _joint_data(self) -> str:
        """What joint training read, as the journal says."""
        found = [event["joint"] for event in self.record.journal() if "joint" in event]
        return str(found[-1]) if found else ""

    def _score(self) -> dict[str, Score]:
        """Score all answers; the folder gets each user's sums, and the answers in LaMP's shape."""
        # numpy is imported only when it is needed.
        from lampbench.metrics import additive, sums_to_json

        task, record = self.plan.task, self.record
        # Two made-up answers: what scoring imports is loaded outside of what is measured.
        score(task, ["1", "1"], ["1", "1"], ["a", "b"])
        start = time.perf_counter()
        answers = record.predictions()
        # In the order of the data, whatever order units were done in.
        ordered = [
            Prediction(query.id, asked.user.id, answers[query.id])
            for asked in self.plan.dataset.evaluated
            for query in asked.queries
        ]
        record.order_predictions(ordered)
        outputs, golds, users = self._columns(record.predictions())
        sums = additive(task, outputs, golds, users)
        record.write(record.sums_path, sums_to_json(users, sums))
        scores = score_sums(task, sums, len(golds), official=official_values(task, outputs, golds))
        official = [{"id": answer.query_id, "output": answer.output} for answer in ordered]
        label = {"about": self.plan.dataset.label} if self.plan.dataset.label else {}
        record.write(record.official_path, {"task": task.evaluator_name, **label, "golds": official})
        self.log({"event": "score", "seconds": time.perf_counter() - start, "memory": {}, "tokens": {}})
        return scores

    def _columns(self, answers: Mapping[str, str]) -> tuple[list[str], list[str], list[str]]:
        """Outputs, golds and users of all queries."""
        queries = [(query.id, asked.user.id) for asked in self.plan.dataset.evaluated for query in asked.queries]
        golds = self.plan.dataset.golds
        return [answers[q] for q, _ in queries], [golds[q] for q, _ in queries], [user for _, user in queries]

    def _log_end(self) -> None:
        """Write the session, and the part of it that no phase accounts for, to the journal."""
        # While workers work, this process waits: their time is in their own events.
        untracked = 0.0 if self._where else max(0.0, self.elapsed - self._tracked)
        self.log({"event": "session_end", "time": now(), "untracked": untracked, "elapsed": self.elapsed})


class UnitSink:
    """Takes one unit's results into the run's folder: the only way in, whatever process does the unit."""

    def __init__(self, run: Run, name: str) -> None:
        self.run = run
        self._name = name
        self.say = run.say
        self.message = run.record.message
        self.log = run.log

    def keep(self, kind: StateKind, written: Path, user_id: str = "") -> None:
        """Move a state to its place, with a README; with the shared state whole, its snapshot goes."""
        if kind != "snapshot" and any(written.iterdir()) and not (written / CARD).exists():
            with storing(written):
                (written / CARD).write_text(state_card(self.run.plan, kind, user_id), encoding="utf-8")
        self.run.record.keep(kind, written, user_id)
        if kind == "shared":
            self.run.record.remove_state(self.run.record.shared_snapshot)

    def answer(self, predictions: Sequence[Prediction]) -> None:
        """Append answers."""
        self.run.record.add_predictions(predictions)

    def asked(self, answers: Mapping[str, str]) -> None:
        """Hold the answers of a unit that only asks."""
        self.run.asked[self._name] = answers

    def move(self, share: float) -> None:
        """Note how far the unit is."""
        self.run.shares[self._name] = share


def finished_earlier(plan: Plan, say: Callable[[str], None]) -> RunRow | None:
    """The row of a finished run, or None."""
    row = RunFolder(plan.folder).row()
    if row is None or row.status != "success" or (plan.settings.swap_test and not row.swap):
        return None
    say(f"{plan.task.name} {plan.method}: finished earlier, kept (--force starts over)")
    return row


def _named(users: Sequence[str]) -> str:
    more = len(users) - _NAMED_USERS
    return ", ".join([*users[:_NAMED_USERS], *([f"and {more} more, all in the log"] if more > 0 else [])])
