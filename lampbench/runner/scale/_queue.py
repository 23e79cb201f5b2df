"""One queue of units over all runs, pulled by workers that live as long as the command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lampbench.runner._limits import TimeLimitError
from lampbench.runner._stop import Stop
from lampbench.runner._work import Bar, Reporter
from lampbench.runner.scale._cluster import Cluster
from lampbench.runner.scale._job import ATTEMPTS, Job
from lampbench.runner.scale._units import Waiting
from lampbench.runner.scale._worker import Delivery, UnitError

# How often progress is shown and time limits are looked at; and how long that may take.
_TICK_SECONDS, _LOOK_SECONDS = 0.5, 5.0


@dataclass(frozen=True)
class _Given:
    """A unit at a worker."""

    job: Job
    unit: Waiting
    key: str
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
        ended = [(self._given.pop(reference), reference) for reference in ready]
        arrived = [(given, self._delivery(given, reference)) for given, reference in ended]
        self._idle += [given.worker for given, _ in ended]
        # First, so that no worker waits while this process writes what came.
        self._give_out()
        for given, delivery in arrived:
            self._done_work += given.unit.work
            if delivery is not None and given.job.row is None:
                given.job.arrived(given.unit.name, delivery.files, delivery.said)
        if time.monotonic() >= self._next_look:
            self._look_at_limits()
            self._show(bar)
            self._next_look = time.monotonic() + _TICK_SECONDS

    def _listen(self) -> None:
        """Pass a wish to stop on."""
        try:
            self._stop.check()
        except KeyboardInterrupt:
            # Every time: who is told may have been started again since.
            self._workers.control.stop.remote()
            if not self._stopping:
                self._stopping = True
                for job in self._jobs:
                    job.interrupt()

    def _give_out(self) -> None:
        while self._idle and (job := self._next_job(self._idle[-1])) is not None:
            self._give(job, self._idle.pop())

    def _next_job(self, worker: int) -> Job | None:
        """Whose unit a worker is to do: the largest there is; of the run that it has in memory, if that has any."""
        waiting = [job for job in self._jobs if job.waiting]
        if self._last.get(worker) in waiting:
            return self._last[worker]
        return max(waiting, key=lambda job: max(unit.work for unit in job.waiting), default=None)

    def _give(self, job: Job, worker: int) -> None:
        waiting = job.give()
        unit = waiting.make()
        self._given[self._workers.actors[worker].do.remote(unit)] = _Given(job, waiting, unit.key, worker)
        self._last[worker] = job

    def _delivery(self, given: _Given, reference: Any) -> Delivery | None:
        """What a worker made; None where it failed, and then it is known to the run, and the worker is a new one."""
        self._workers.control.forget.remote(given.key)
        try:
            delivery: Delivery = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._missed(given, error)
            return None
        return delivery

    def _missed(self, given: _Given, error: BaseException) -> None:
        failure = _Failure.of(self._ray, error)
        # What the failure left in its process, a broken GPU context for one, meets no other unit.
        self._workers.replace(given.worker)
        self._last.pop(given.worker, None)
        if given.job.row is None:
            given.job.missed(
                given.unit.name, failure.reason, failure.details, attempts=failure.attempts, hopeless=failure.hopeless
            )

    def _look_at_limits(self) -> None:
        limit = self._time_limit
        for job in self._jobs:
            if limit is not None and job.row is None and job.work.elapsed() > limit:
                for given in self._given.values():
                    if given.job is job:
                        # It may hang.
                        self._workers.replace(given.worker)
                job.fail(TimeLimitError(f"the time limit of {limit:g} s is over; a longer --time-limit continues"))

    def _show(self, bar: Bar) -> None:
        keys = [given.key for given in self._given.values()]
        try:
            shares = self._ray.get(self._workers.control.shares.remote(keys), timeout=_LOOK_SECONDS)
        except self._ray.exceptions.RayError:
            # It is being started again.
            return
        running = sum(given.unit.work * shares.get(given.key, 0.0) for given in self._given.values())
        left = sum(given.unit.work for given in self._given.values())
        left += sum(unit.work for job in self._jobs for unit in job.waiting)
        bar.move(int(99 * (self._done_work + running) / max(1.0, self._done_work + left)), 100)

    def _end_now(self) -> None:
        """The user asked twice: what is running is lost."""
        for job in self._jobs:
            job.running.clear()
            job.interrupt()


@dataclass(frozen=True)
class _Failure:
    """What a failed call of a worker means for its unit; ``reason`` names no machine, process or address."""

    reason: str
    details: str
    attempts: int = 1
    hopeless: bool = False

    @classmethod
    def of(cls, ray: Any, error: BaseException) -> _Failure:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UnitError):
            return cls(str(cause), cause.details, hopeless=cause.loading)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if isinstance(error, ray.exceptions.RayTaskError):
            # It did not come to the unit: what a worker needs for it is not installed there.
            return cls(f"a worker cannot take it: {lines[-1]}", str(error), hopeless=True)
        if isinstance(error, ray.exceptions.ActorUnavailableError):
            # Ray has started it again, and tried again, as often as it was told to.
            return cls("its worker died", str(error), attempts=ATTEMPTS)
        return cls("its worker could not be started again", str(error))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
