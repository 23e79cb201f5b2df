"""A contract as checks: each is carried out once, after those that it builds on; for pytest and the command line."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol
from unittest import SkipTest

from lampbench.testing._globals import kept_globals


class ContractError(AssertionError):
    """A plug-in breaks a promise; the message says what was found, what was expected, and what to do."""


class NotTried(SkipTest):
    """A check that has no result: the task is skipped, or a check that it builds on fails. For pytest, a skip."""


def broken(found: str) -> NoReturn:
    """End a check: the promise is broken."""
    raise ContractError(found)


@dataclass(frozen=True)
class Check:
    """One promise.

    Attributes:
        name: A short noun.
        promise: What a plug-in that keeps it does.
        advice: What to do if it does not.
        needs: Checks without which this one says nothing.
        try_it: Tries it; raises ContractError, or anything else that the plug-in raises. Gives notes.
        of_task: Whether a method is tried task by task.
    """

    name: str
    promise: str
    advice: str
    needs: tuple[str, ...]
    try_it: Callable[[Any], Iterable[str] | None]
    of_task: bool = True


class Subject(Protocol):
    """A plug-in that is checked."""

    def trial(self, task: str) -> Any:
        """What the checks of a task receive."""

    def supports(self, task: str) -> tuple[bool, str]:
        """Whether there is something to check on a task, and if not, why."""

    def source(self) -> str | None:
        """The plug-in's own source file, or None."""


@dataclass(frozen=True)
class Outcome:
    """How a check ended.

    Attributes:
        status: ``passed``; ``failed``; ``skipped``, because the method does not support the task; or
            ``blocked``, because a check that it builds on fails.
        message: Why it did not pass.
        advice: What to do if it failed.
        notes: What a reader should know although it passed.
        seconds: How long it took.
        error: What was raised, if it failed.
    """

    status: Literal["passed", "failed", "skipped", "blocked"]
    message: str = ""
    advice: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    error: BaseException | None = None


class Book:
    """The outcomes of one plug-in's checks."""

    def __init__(self, subject: Subject, checks: Mapping[str, Check]) -> None:
        self._subject = subject
        self._checks = checks
        self._outcomes: dict[tuple[str, str], Outcome] = {}

    def outcome(self, name: str, task: str) -> Outcome:
        """How a check ends on a task (empty for those of the plug-in as a whole)."""
        check = self._checks[name]
        key = (name, task if check.of_task else "")
        if key not in self._outcomes:
            self._outcomes[key] = self._not_tried(check, task) or self._tried(check, task)
        return self._outcomes[key]

    def _not_tried(self, check: Check, task: str) -> Outcome | None:
        """The outcome if there is nothing to check, or None."""
        for need in check.needs:
            found = self.outcome(need, task)
            if found.status == "failed":
                return Outcome("blocked", f"not tried: it builds on {need}, which fails")
            if found.status in ("skipped", "blocked"):
                return Outcome(found.status, found.message)
        if check.of_task:
            supported, reason = self._subject.supports(task)
            if not supported:
                return Outcome("skipped", reason)
        return None

    def _tried(self, check: Check, task: str) -> Outcome:
        start = time.perf_counter()
        try:
            with kept_globals():
                notes = check.try_it(self._subject.trial(task) if check.of_task else self._subject)
            ended = Outcome("passed", notes=tuple(notes or ()))
        except NotTried as error:
            ended = Outcome("blocked", str(error))
        except ContractError as error:
            ended = Outcome("failed", str(error), check.advice, error=error)
        except (Exception, SystemExit) as error:  # a plug-in may raise anything
            ended = Outcome("failed", self._raised(error), error=error)
        return replace(ended, seconds=time.perf_counter() - start)

    def _raised(self, error: BaseException) -> str:
        """The error, and the last line of the plug-in's own file that it came through."""
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        own = self._subject.source()
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
        return f"{text} ({Path(own).name}, line {lines[-1]})" if own and lines else text


@dataclass(frozen=True)
class Case:
    """One check of one plug-in, of a method on one task; ``str(case)`` is its id.

    Attributes:
        plugin, task, check: Their names; ``task`` is empty for what is tried once.
    """

    plugin: str
    task: str
    check: str
    _book: Book = field(repr=False, compare=False)

    def __str__(self) -> str:
        return "-".join(part for part in (self.plugin, self.task, self.check) if part)

    def outcome(self) -> Outcome:
        """How the check ends. It is run once."""
        return self._book.outcome(self.check, self.task)

    def run(self) -> tuple[str, ...]:
        """Run the check; returns notes.

        Raises:
            ContractError: The plug-in does not keep the promise.
            unittest.SkipTest: The check says nothing here; pytest counts it as skipped.
        """
        __tracebackhide__ = True
        outcome = self.outcome()
        if outcome.status == "failed":
            raise self._failure(outcome) from (None if isinstance(outcome.error, ContractError) else outcome.error)
        if outcome.status != "passed":
            raise NotTried(outcome.message)
        return outcome.notes

    def _failure(self, outcome: Outcome) -> ContractError:
        parts = [f"{self}: {outcome.message}", *([outcome.advice] if outcome.advice else [])]
        failure = ContractError(". ".join(parts))
        for note in getattr(outcome.error, "__notes__", ()):
            failure.add_note(note)
        return failure
