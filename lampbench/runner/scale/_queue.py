"""One queue of units over all runs, pulled by workers that live as long as the command."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lampbench.runner._failures import TimeLimitError
from lampbench.runner._limits import Stop
from lampbench.runner._run import Bar, Reporter, Run
from lampbench.runner._units import Waiting
from lampbench.runner.scale._actor import Sent, UnitError, take
from lampbench.runner.scale._cluster import Cluster

# How often progress is shown and time limits are looked at.
_TICK_SECONDS = 0.5


@dataclass(frozen=True)
class _Given:
    """A unit at a worker."""

    run: Run
    unit: Waiting
    worker: int


class Queue:
    """Gives units to workers until every run has its row.

    Args:
        runs: The runs.
        workers: The workers.
        send: Makes what a worker is sent of a run's unit.
        reporter: Shows progress: one bar over everything.
        time_limit: Seconds that a run may take from its first unit on; None: no limit.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        workers: Cluster,
        send: Callable[[Run, Waiting], Sent],
        reporter: Reporter,
        time_limit: float | None,
    ) -> None:
        import ray

        self._ray = ray
        self._runs = runs
        self._workers = workers
        self._send = send
        self._reporter = reporter
        self._time_limit = time_limit
        self._stop = Stop()
        self._stopping = False
        self._idle = list(range(len(workers.actors)))
        # A unit's stream of results -> who makes it.
        self._given: dict[Any, _Given] = {}
        # The run that a worker has in memory.
        self._last: dict[int, Run] = {}
        self._done_work = 0.0
        self._next_look = 0.0

    def run(self) -> None:
        """Come to the end of all runs.

        Raises:
            KeyboardInterrupt: The user asked to end; every row is written.
        """
        name = f"{_counted(len(self._runs), 'run')} on {_counted(len(self._workers.actors), 'worker')}"
        with self._reporter.phase(name, 100) as bar:
            with self._stop.listening():
                try:
                    while any(run.row is None for run in self._runs):
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
        waiting = list(self._given)
        ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0) if waiting else ([], [])
        if waiting and not ready:
            ready, _ = self._ray.wait(waiting, timeout=_TICK_SECONDS)
        for stream in ready:
            self._receive(stream)
        if time.monotonic() >= self._next_look:
            self._look_at_limits()
            self._show(bar)
            self._next_look = time.monotonic() + _TICK_SECONDS

    def _receive(self, stream: Any) -> None:
        """Take what a worker made next; at its end, or if it failed, the worker is idle again."""
        given = self._given[stream]
        try:
            messages = self._ray.get(next(stream))
        except StopIteration:
            self._idle.append(self._given.pop(stream).worker)
            # First, so that no worker waits while this process scores a run.
            self._give_out()
            self._done_work += given.unit.work
            if given.run.row is None:
                given.run.done(given.unit.name)
        except self._ray.exceptions.RayError as error:
            self._missed(given, error)
            self._idle.append(self._given.pop(stream).worker)
        else:
            if given.run.row is None:
                take(messages, given.run.sink(given.unit.name))

    def _listen(self) -> None:
        """Pass on a request to stop."""
        try:
            self._stop.check()
        except KeyboardInterrupt:
            # Every time: a worker may have been started again since.
            for actor in self._workers.actors:
                actor.stop.remote()
            if not self._stopping:
                self._stopping = True
                for run in self._runs:
                    run.interrupt()

    def _give_out(self) -> None:
        while self._idle and (run := self._next_run(self._idle[-1])) is not None:
            if run.take_shared():
                continue
            worker = self._idle.pop()
            unit = run.give()
            stream = self._workers.actors[worker].do.options(num_returns="streaming").remote(self._send(run, unit))
            self._given[stream] = _Given(run, unit, worker)
            self._last[worker] = run

    def _next_run(self, worker: int) -> Run | None:
        """Whose unit a worker is to do: the largest there is; of the run that it has in memory, if that has any.

        A run whose shared stage another one is training waits for that.
        """
        in_training = {run.trains for run in self._runs} - {None}
        waiting = [run for run in self._runs if run.waiting and run.needs not in in_training]
        if self._last.get(worker) in waiting:
            return self._last[worker]
        return max(waiting, key=lambda run: max(unit.work for unit in run.waiting), default=None)

    def _missed(self, given: _Given, error: BaseException) -> None:
        failure = _Failure.of(self._ray, error)
        # What the failure left in its process, a broken GPU context for one, meets no other unit.
        self._workers.replace(given.worker)
        self._last.pop(given.worker, None)
        if given.run.row is None:
            given.run.missed(given.unit.name, failure.reason, failure.details, hopeless=failure.hopeless)

    def _look_at_limits(self) -> None:
        limit = self._time_limit
        for run in self._runs:
            if limit is not None and run.row is None and run.elapsed > limit:
                for stream, given in list(self._given.items()):
                    if given.run is run:
                        # It may hang.
                        self._workers.replace(given.worker)
                        self._idle.append(self._given.pop(stream).worker)
                error = TimeLimitError(
                    f"the time limit of {limit:g} s is over; repeat the command with a longer --time-limit to resume"
                )
                run.fail(error, run.phase)

    def _show(self, bar: Bar) -> None:
        running = sum(given.unit.work * given.run.shares.get(given.unit.name, 0.0) for given in self._given.values())
        left = sum(given.unit.work for given in self._given.values())
        left += sum(unit.work for run in self._runs for unit in run.waiting)
        bar.move(int(99 * (self._done_work + running) / max(1.0, self._done_work + left)), 100)

    def _end_now(self) -> None:
        """The user asked twice: running units are lost."""
        for run in self._runs:
            run.running.clear()
            run.interrupt()


@dataclass(frozen=True)
class _Failure:
    """What a failed call of a worker means for its unit; ``reason`` names no machine, process or address."""

    reason: str
    details: str
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
        return cls("its worker died", str(error))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
