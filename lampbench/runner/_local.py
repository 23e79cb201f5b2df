"""The executor that does all units in this process, run by run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from lampbench.rows import RunRow
from lampbench.runner._failures import StorageError
from lampbench.runner._folder import RunFolder
from lampbench.runner._limits import Stop, limit_memory, time_limit
from lampbench.runner._plan import Plan
from lampbench.runner._run import Bar, Reporter, Run, UnitSink, Whole, finished_earlier
from lampbench.runner._stages import SharedStages
from lampbench.runner._worker import Worker

# Of a bar: so many, that a slow model moves it.
_PARTS = 1000
_STAGES = {"fit": "shared stage", "shard": "users", "ask": "checks"}


class Executor(Protocol):
    """Does the runs of one command; results do not depend on the executor."""

    def run_all(self, plans: Sequence[Plan], *, force: bool = False) -> list[RunRow]:
        """The rows of the plans, in order; with ``force``, earlier work of the same identities is deleted first."""


class LocalExecutor:
    """Does runs in this process, one after another; the backbone is loaded by the first run that needs it.

    Args:
        reporter: Shows progress.
        backbone: A backbone that is loaded already; None to load the plans' own.
    """

    def __init__(self, reporter: Reporter, backbone: Any = None) -> None:
        self._reporter = reporter
        self._worker = Worker(backbone)
        self._stages = SharedStages()

    def run_all(self, plans: Sequence[Plan], *, force: bool = False) -> list[RunRow]:
        """The plans' rows, in their order, within the user's limit of memory; see ``run``."""
        device = next((plan.backbone.device for plan in plans if plan.backbone), "cpu")
        limit_memory(plans[0].settings.memory_limit if plans else None, device)
        if not force:
            for plan in plans[1:]:
                # What an earlier command left is checked before the first run starts, not hours later.
                folder = RunFolder(plan.folder)
                folder.row(), folder.journal(), folder.predictions(), folder.replies()
        rows = [None if force else finished_earlier(plan, self._reporter.say) for plan in plans]
        todo = rows.count(None)
        with ExitStack() as shown:
            whole = shown.enter_context(self._reporter.runs(todo)) if todo else None
            for place, plan in enumerate(plans):
                if rows[place] is None:
                    rows[place] = self._run(plan, force, whole, todo - rows.count(None))
        return [row for row in rows if row is not None]

    def run(self, plan: Plan, *, force: bool = False) -> RunRow:
        """Run ``plan``, or resume it from where an earlier session of the same identity stopped.

        Returns:
            The row, as written to ``row.json``. A method that raises, or takes longer than the user
            allows, gives a row of status ``failed``.

        Raises:
            KeyboardInterrupt: On Ctrl-C or SIGTERM, after a row of status ``incomplete`` was written.
            LampBenchError: The folder cannot be written, or another process works on the same run.
        """
        row = None if force else finished_earlier(plan, self._reporter.say)
        return self._run(plan, force) if row is None else row

    def _run(self, plan: Plan, force: bool, whole: Whole | None = None, before: int = 0) -> RunRow:
        """Do what is missing; ``before`` runs of the command are done, as the line of the ``whole`` shows."""
        stop = Stop()
        with RunFolder(plan.folder).held(force=force) as record, stop.listening():
            run = Run(plan, record, self._reporter.say, shared=self._stages.of(plan, fresh=force))
            try:
                with time_limit(plan.settings.time_limit):
                    self._do(run, stop, _Place(run, whole, before))
            except KeyboardInterrupt:
                run.running.clear()
                run.interrupt()
                raise
            except StorageError:
                # There is no room to write what happened; what is there is complete.
                raise
            except BaseException as error:  # whatever a plug-in raises, sys.exit too, ends this run and not the others
                run.fail(error, self._worker.phase)
        return run.result

    def _do(self, run: Run, stop: Stop, place: _Place) -> None:
        """Do units until the run has its row."""
        stage = ""
        place.show()
        with ExitStack() as shown:
            while run.row is None:
                if run.take_shared():
                    continue
                unit = run.give()
                if unit.kind != stage:
                    shown.close()
                    stage = unit.kind
                    bar = shown.enter_context(self._reporter.phase(f"{run.name} {_STAGES[stage]}", _PARTS))
                sink = _Shown(run, unit.name, bar, place)
                self._worker.do(unit.make(), sink, stop.check)
                sink.move(1.0)
                run.done(unit.name)
                # Asked to end in its last moments, a run is done; what would come next is not to begin.
                stop.check()


class _Place:
    """Where a run stands in its command."""

    def __init__(self, run: Run, whole: Whole | None, before: int) -> None:
        self._run = run
        self._whole = whole
        self._before = before

    def show(self) -> None:
        """Show how much of the command is done."""
        if self._whole is not None:
            # A run that is about to be scored is not the next one.
            self._whole.move(self._before + min(0.999, self._run.whole_progress), self._run.name)


class _Shown(UnitSink):
    """Takes results, and moves a bar."""

    def __init__(self, run: Run, name: str, bar: Bar, place: _Place) -> None:
        super().__init__(run, name)
        self._bar = bar
        self._place = place

    def move(self, share: float) -> None:
        """Note how far the unit is, and show it."""
        super().move(share)
        self._bar.move(int(_PARTS * self.run.progress), _PARTS)
        self._place.show()
