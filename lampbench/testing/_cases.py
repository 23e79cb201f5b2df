"""The checks of one method as cases: for pytest, and for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lampbench.core import InputError, methods, unknown_name
from lampbench.testing._book import Book, Outcome
from lampbench.testing._checks import CHECKS
from lampbench.testing._errors import ContractError, NotTried
from lampbench.testing._fixture import TASKS
from lampbench.testing._trial import Subject


@dataclass(frozen=True)
class Case:
    """One check of one method on one task; ``str(case)`` is its id.

    Attributes:
        method, task, check: Their names; ``task`` is empty for what is tried once a method.
    """

    method: str
    task: str
    check: str
    _book: Book = field(repr=False, compare=False)

    def __str__(self) -> str:
        return "-".join(part for part in (self.method, self.task, self.check) if part)

    def outcome(self) -> Outcome:
        """How the check ends. It is carried out once."""
        return self._book.outcome(self.check, self.task)

    def run(self) -> tuple[str, ...]:
        """Carry the check out; gives notes.

        Raises:
            ContractError: The method does not keep the promise.
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


def contract_cases(
    name: str, tasks: Sequence[str] | None = None, settings: Mapping[str, Any] | None = None
) -> list[Case]:
    """Everything that is tried of the method called ``name``; nothing is imported before a case runs.

    Args:
        name: The method, as on the command line.
        tasks: On which tasks; default: all of the mini suite.
        settings: What is not to be the default of its settings, as for ``--set``.

    Raises:
        InputError: There is no method, or no task, of that name.
    """
    if name not in methods().names():
        methods().plugin(name)
    chosen = TASKS if tasks is None else tuple(dict.fromkeys(tasks))
    for task in chosen:
        if task not in TASKS:
            raise unknown_name("task of the mini suite", task, TASKS)
    if not chosen:
        raise InputError(f"no task given; known: {', '.join(TASKS)}")
    book = Book(Subject(name, chosen, dict(settings or {})))
    of_method = [check.name for check in CHECKS.values() if not check.of_task]
    of_task = [check.name for check in CHECKS.values() if check.of_task]
    return [Case(name, "", check, book) for check in of_method] + [
        Case(name, task, check, book) for task in chosen for check in of_task
    ]
