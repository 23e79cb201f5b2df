"""One run of the queue: units given out, units that came back, and the row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal

from lampbench.core import InputError, Parameters
from lampbench.rows import RunRow
from lampbench.runner._answer import score_answers, score_swapped
from lampbench.runner._check import data_checks
from lampbench.runner._execute import announce, end, failed
from lampbench.runner._plan import Plan
from lampbench.runner._row import finished_row, open_row
from lampbench.runner._storage import StorageError
from lampbench.runner._work import Work
from lampbench.runner.scale._inbox import Inbox
from lampbench.runner.scale._missing import Files, Missing
from lampbench.runner.scale._units import SharedUsers, Waiting

# Attempts at a unit.
ATTEMPTS = 3
_NAMED_USERS = 5
_PHASES = {"fit": "fit_shared", "shard": "adapt", "ask": "swap"}


class Job:
    """One run, whose folder this process holds.

    Args:
        work: The run's session in this process; its clock starts with the first unit.
        plan, workers, shared, files: As for ``Missing``.

    Attributes:
        waiting: Units that can be given out now.
        running: Those that were, by name.
        row: Once the run has ended.
    """

    def __init__(self, work: Work, plan: Plan, workers: int, shared: SharedUsers, files: Files) -> None:
        self.work = work
        self.waiting: list[Waiting] = []
        self.running: dict[str, Waiting] = {}
        self.row: RunRow | None = None
        self._attempts: Counter[str] = Counter()
        self._failures: list[tuple[Waiting, str]] = []
        self._begun = self._succeeded = self._hopeless = self._stopped = False
        work.hold_clock()
        self._inbox = Inbox(work.folder)
        self._missing = Missing(work, plan, self._inbox, workers, shared, files)
        for name in self._inbox.left_behind():
            # One that is damaged is deleted, and its unit missing as before.
            with suppress(InputError):
                self._take(name)
        self._advance()

    def give(self) -> Waiting:
        """The unit with the most work of those that wait; it is running now."""
        self._begin()
        unit = max(self.waiting, key=lambda unit: unit.work)
        self.waiting.remove(unit)
        self.running[unit.name] = unit
        self.work.phase = _PHASES[unit.kind]
        return unit

    def arrived(self, name: str, files: Mapping[str, bytes] | None, said: Sequence[str] = ()) -> None:
        """A unit was done.

        Args:
            name: The unit's.
            files: Its parcel, where that is not in the run folder.
            said: Lines for the user.
        """
        unit = self.running[name]
        try:
            if files is not None:
                self._inbox.receive(name, files)
            if unit.kind == "fit" and files is None:
                self._inbox.look()
            else:
                self._take(name)
        except InputError as error:
            self.missed(name, str(error))
            return
        del self.running[name]
        self._succeeded = True
        for text in said:
            self.work.reporter.say(text)
        self._advance()

    def missed(self, name: str, reason: str, details: str = "", *, attempts: int = 1, hopeless: bool = False) -> None:
        """A unit failed; it waits for another worker unless it has failed too often.

        Args:
            name: The unit's.
            reason: In one line, for the row: no word of where it happened.
            details: For the run's log.
            attempts: How many attempts this was.
            hopeless: Where no other unit succeeded, none will.
        """
        unit = self.running.pop(name)
        self.work.folder.message(f"{name} failed (users: {', '.join(unit.users) or 'none'}): {details or reason}")
        self._attempts[name] += attempts
        if self._attempts[name] < ATTEMPTS and not self._stopped:
            self.waiting.append(unit)
            return
        self._failures.append((unit, reason))
        if unit.kind == "fit" or (hopeless and not self._succeeded):
            self._hopeless = True
            self.waiting.clear()
        self._advance()

    def interrupt(self) -> None:
        """Give out nothing more; the run ends with what is running."""
        self._stopped = True
        self.waiting.clear()
        self._advance()

    def fail(self, error: BaseException) -> None:
        """End the run now, whatever is running."""
        self.waiting.clear()
        self.running.clear()
        self.row = failed(self.work, error)

    def _begin(self) -> None:
        """The session, once it does anything: until then the run waits for others of its command."""
        if self._begun:
            return
        self._begun = True
        self.work.start_clock()
        announce(self.work)
        with self.work.measured("load") as event:
            # The backbone is loaded by workers, which count it.
            event["seconds"] += self.work.plan.data_seconds

    def _take(self, name: str) -> None:
        for text in self._inbox.take(name, self.work.elapsed()):
            self.work.reporter.say(text)

    def _advance(self) -> None:
        """Find the next units, or end the run, where nothing of it is waiting or running."""
        if self.row is not None or self.waiting or self.running:
            return
        if self._stopped:
            self.row = self._interrupted()
        elif self._failures:
            self.row = self._given_up()
        else:
            self.waiting = self._missing.units()
            if not self.waiting:
                self.row = self._finished()

    def _interrupted(self) -> RunRow:
        if not self._begun:
            # Nothing was done: nothing is written.
            return self.work.folder.row() or open_row(self.work.plan, self.work.dataset, self.work.folder, "incomplete")
        self.work.reporter.say(f"{self.work.name}: interrupted; the same command continues")
        return end(self.work, "incomplete")

    def _given_up(self) -> RunRow:
        reason = self._failures[0][1]
        users = [user for unit, _ in self._failures for user in unit.users]
        if users and not self._hopeless:
            status: Literal["failed", "incomplete"] = "incomplete"
            reason = f"{len(users)} users failed three times ({_named(users)}): {reason}; the same command tries again"
        else:
            status = "failed"
        row = end(self.work, status, reason)
        self.work.reporter.say(f"{self.work.name}: {status}: {reason} (details: {self.work.folder.log_path})")
        return row

    def _finished(self) -> RunRow:
        self._begin()
        try:
            row = self._scored()
        except StorageError:
            raise
        except Exception as error:  # a stranger's metric
            return failed(self.work, error)
        self.work.folder.write(self.work.folder.row_path, row.to_json())
        self.work.folder.remove_shards()
        self.work.reporter.say(f"{self.work.name}: done")
        return row

    def _scored(self) -> RunRow:
        work, missing = self.work, self._missing
        scores = score_answers(work)
        swapped = missing.swapped
        checks = data_checks(work) | missing.checks
        work.log_end()
        return finished_row(
            work.plan,
            work.dataset,
            work.folder,
            missing.parameters or Parameters(),
            scores,
            None if swapped is None else score_swapped(work, swapped),
            checks,
            work.where,
        )


def _named(users: Sequence[str]) -> str:
    more = len(users) - _NAMED_USERS
    return ", ".join([*users[:_NAMED_USERS], *([f"and {more} more, all in the log"] if more > 0 else [])])
