"""One queue of units over all runs, pulled by workers that live as long as the command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lampbench.runner._limits import TimeLimitError
from lampbench.runner._stop import Stop
from lampbench.runner._work import Bar, Reporter
from lampbench.runner.scale._cluster import RETRIES, Cluster
from lampbench.runner.scale._job import Job
from lampbench.runner.scale._units import Waiting
from lampbench.runner.scale._worker import UnitError

# How often progress is shown and time limits are looked at.
_TICK_SECONDS = 0.5


@dataclass(frozen=True)
class _Given:
    """A unit at a worker."""

    job: Job
    unit: Waiting
    worker: int


class Queue:
    """Gives units to workers until every run has its row.

    Args:
        jobs: The runs.
        workers: Who does them.
        reporter: Shows progress: one bar over everything.
        time_limit: Seconds that a run may take from its first unit on; None: no limit.
    """

    def __init__(self, jobs: Sequence[Job], workers: Cluster, reporter: Reporter, time_limit: float | None) -> None:
        import ray

        self._ray = ray
        self._jobs = jobs
        self._workers = workers
        self._reporter = reporter
        self._time_limit = time_limit
        self._stop = Stop()
        self._stopping = False
        self._idle = list(range(len(workers.actors)))
        self._given: dict[Any, _Given] = {}
        self._began: dict[Job, float] = {}
        # The run that a worker has in memory.
        self._last: dict[int, Job] = {}
        self._done_work = 0.0
        self._next_look = 0.0

    def run(self) -> None:
        """Come to the end of all runs.

        Raises:
            KeyboardInterrupt: The user asked to end; every row is written.
        """
        name = f"{_counted(len(self._jobs), 'run')} on {_counted(len(self._workers.actors), 'worker')}"
        with self._reporter.phase(name, 100) as bar:
            with self._stop.listening():
                try:
                    while any(job.row is None for job in self._jobs):
                        self._turn(bar)
                except KeyboardInterrupt:
                    self._end_now()
                    raise
            if not self._stopping:
                bar.move(100, 100)
        if self._stopping:
            raise KeyboardInterrupt

    def _turn(self, bar: Bar) -> None:
        self._listen()
        self._give_out()
        ready, _ = self._ray.wait(list(self._given), timeout=_TICK_SECONDS) if self._given else ([], [])
        ended = [(reference, self._given.pop(reference)) for reference in ready]
        self._idle += [given.worker for _, given in ended]
        # First, so that no worker waits while this process writes what came.
        self._give_out()
        for reference, given in ended:
            self._arrived(reference, given)
        if time.monotonic() >= self._next_look:
            self._look_at_limits()
            self._show(bar)
            self._next_look = time.monotonic() + _TICK_SECONDS

    def _give_out(self) -> None:
        while self._idle and (job := self._next_job(self._idle[-1])) is not None:
            self._give(job, self._idle.pop())

    def _listen(self) -> None:
        """Pass a wish to stop on, once."""
        try:
            self._stop.check()
        except KeyboardInterrupt:
            if not self._stopping:
                self._stopping = True
                self._workers.control.stop.remote()
                for job in self._jobs:
                    job.interrupt()

    def _next_job(self, worker: int) -> Job | None:
        """Whose unit a worker is to do: the largest there is; of the run that it has in memory, if that has any."""
        waiting = [job for job in self._jobs if job.waiting]
        if self._last.get(worker) in waiting:
            return self._last[worker]
        return max(waiting, key=lambda job: max(unit.work for unit in job.waiting), default=None)

    def _give(self, job: Job, worker: int) -> None:
        unit = job.give()
        # Ray repeats the call where the worker dies, and where it raises.
        method = self._workers.actors[worker].do.options(max_task_retries=RETRIES, retry_exceptions=True)
        self._given[method.remote(unit.make())] = _Given(job, unit, worker)
        self._began.setdefault(job, job.work.elapsed())
        self._last[worker] = job

    def _arrived(self, reference: Any, given: _Given) -> None:
        try:
            delivery = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if given.job.row is None:
                self._lost(given, error)
            return
        self._done_work += given.unit.work
        if given.job.row is None:
            given.job.arrived(given.unit.name, delivery.files)

    def _lost(self, given: _Given, error: BaseException) -> None:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UnitError):
            given.job.lost(given.unit.name, str(cause), cause.details, hopeless=cause.loading)
        elif isinstance(error, self._ray.exceptions.RayTaskError):
            # It did not come to the unit: what a worker needs for it is not installed there.
            given.job.lost(given.unit.name, f"a worker cannot take it: {_lines(error)[-1]}", str(error), hopeless=True)
        else:
            given.job.lost(given.unit.name, f"its worker died: {_lines(error)[0]}", str(error))

    def _look_at_limits(self) -> None:
        limit = self._time_limit
        for job, began in self._began.items():
            if limit is not None and job.row is None and job.work.elapsed() - began > limit:
                job.fail(TimeLimitError(f"the time limit of {limit:g} s is over; a longer --time-limit continues"))
                for given in self._given.values():
                    if given.job is job:
                        # It may hang.
                        self._workers.replace(given.worker)

    def _show(self, bar: Bar) -> None:
        shares = self._ray.get(self._workers.control.shares.remote())
        running = sum(given.unit.work * shares.get(given.unit.name, 0.0) for given in self._given.values())
        left = sum(given.unit.work for given in self._given.values())
        left += sum(unit.work for job in self._jobs for unit in job.waiting)
        done = self._done_work + running
        bar.move(int(99 * done / max(1.0, self._done_work + left)), 100)

    def _end_now(self) -> None:
        """The user asked twice: what is running is lost."""
        for job in self._jobs:
            job.running.clear()
            job.interrupt()


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]
