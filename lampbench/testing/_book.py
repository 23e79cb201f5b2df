"""What is known of a method: each check is carried out once, after those that it builds on."""

from __future__ import annotations

import inspect
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from lampbench.testing._checks import CHECKS, Check
from lampbench.testing._errors import ContractError, NotTried
from lampbench.testing._randomness import kept_globals
from lampbench.testing._trial import Subject, Trial


@dataclass(frozen=True)
class Outcome:
    """How a check ended.

    Attributes:
        status: ``passed``; ``failed``; ``skipped``, because the method does not support the task; or
            ``blocked``, because a check that it builds on fails.
        message: Why it did not pass.
        advice: What to do where it failed.
        notes: What a reader should know though it passed.
        seconds: How long it took.
        error: What was raised where it failed.
    """

    status: Literal["passed", "failed", "skipped", "blocked"]
    message: str = ""
    advice: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    error: BaseException | None = None


class Book:
    """The outcomes of one method's checks."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._trial = cache(lambda task: Trial(subject, task))
        self._outcomes: dict[tuple[str, str], Outcome] = {}

    def outcome(self, name: str, task: str) -> Outcome:
        """How a check ends on a task (empty for those of the method as a whole)."""
        check = CHECKS[name]
        key = (name, task if check.of_task else "")
        if key not in self._outcomes:
            self._outcomes[key] = self._not_tried(check, task) or self._tried(check, task)
        return self._outcomes[key]

    def _not_tried(self, check: Check, task: str) -> Outcome | None:
        """The outcome where there is nothing to try; None where there is."""
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
                notes = check.try_it(self._trial(task) if check.of_task else self._subject)
            ended = Outcome("passed", notes=tuple(notes or ()))
        except NotTried as error:
            ended = Outcome("blocked", str(error))
        except ContractError as error:
            ended = Outcome("failed", str(error), check.advice, error=error)
        except (Exception, SystemExit) as error:  # whatever a stranger's method raises
            ended = Outcome("failed", self._raised(error), error=error)
        return replace(ended, seconds=time.perf_counter() - start)

    def _raised(self, error: BaseException) -> str:
        """The error, and the last line of the method's own file that it came through."""
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        with suppress(Exception):
            own = inspect.getsourcefile(self._subject.kind)
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
            if own and lines:
                return f"{text} ({Path(own).name}, line {lines[-1]})"
        return text
