"""Where the runs of one command are done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lampbench.rows import RunRow
from lampbench.runner._execute import execute
from lampbench.runner._load import OneBackbone
from lampbench.runner._plan import Plan, Planner
from lampbench.runner._work import Reporter


class Executor(Protocol):
    """Does the runs of one command; what comes out does not depend on which one does them."""

    def run_all(self, plans: Sequence[Plan], *, force: bool = False) -> list[RunRow]:
        """The plans' rows, in their order; with ``force`` earlier work of the same identities is deleted first."""


class Session:
    """Executes plans in this process, in turn; the backbone is loaded by the first run that needs it."""

    def __init__(self, planner: Planner, reporter: Reporter) -> None:
        self._planner = planner
        self._reporter = reporter
        self._backbone = OneBackbone()

    def run_all(self, plans: Sequence[Plan], *, force: bool = False) -> list[RunRow]:
        """The plans' rows, in their order; with ``force`` earlier work of the same identities is deleted first."""
        return [self.run(plan, force=force) for plan in plans]

    def run(self, plan: Plan, *, force: bool = False) -> RunRow:
        """The row of ``plan``; with ``force`` earlier work of the same identity is deleted first."""
        data = self._planner.evaluated(plan)
        return execute(plan, data, self._backbone, self._reporter, force=force)
