"""The executor on Ray: from plans to rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from lampbench.data import Dataset
from lampbench.rows import RunRow
from lampbench.runner._execute import finished_earlier
from lampbench.runner._folder import RunFolder
from lampbench.runner._learn import has_shared_stage
from lampbench.runner._plan import Plan, Planner
from lampbench.runner._storage import storing
from lampbench.runner._work import Bar, Reporter, Work
from lampbench.runner.scale._cluster import Cluster, ClusterSettings, cluster
from lampbench.runner.scale._job import Job
from lampbench.runner.scale._parcel import pack
from lampbench.runner.scale._queue import Queue
from lampbench.runner.scale._units import SharedUsers

_T = TypeVar("_T")


class RayExecutor:
    """Does the runs of one command on the workers of a Ray cluster.

    Units are idempotent. Ray repeats one whose worker died, in a new process; one that fails is given out again, to
    a new process. After three attempts its run is left incomplete, and goes on with the same command.

    Args:
        planner: Made the plans.
        reporter: Shows progress.
        settings: Which workers.
    """

    def __init__(self, planner: Planner, reporter: Reporter, settings: ClusterSettings) -> None:
        self._planner = planner
        self._reporter = reporter
        self._settings = settings
        self._sent: dict[str, SharedUsers] = {}

    def run_all(self, plans: Sequence[Plan], *, force: bool = False) -> list[RunRow]:
        """The plans' rows, in their order; with ``force`` earlier work of the same identities is deleted first.

        Raises:
            KeyboardInterrupt: On Ctrl-C or SIGTERM, after the rows of unfinished runs were written.
            InputError: There are no such workers.
            LampBenchError: A folder cannot be written, or another process works on one of the runs.
        """
        rows = [None if force else finished_earlier(plan, self._reporter) for plan in plans]
        made = iter(self._run([plan for plan, row in zip(plans, rows, strict=True) if row is None], force))
        return [next(made) if row is None else row for row in rows]

    def _run(self, plans: Sequence[Plan], force: bool) -> list[RunRow]:
        if not plans:
            return []
        device = next((plan.backbone.device for plan in plans if plan.backbone), None)
        with ExitStack() as held:
            for plan in plans:
                held.enter_context(RunFolder(plan.folder).held())
            shared_file = held.enter_context(_shared_file(self._planner.settings.out / f".seen-{plans[0].run_id}"))
            workers = held.enter_context(cluster(self._settings, device, shared_file, self._reporter.say))
            if force:
                # Only now that there is who does it again.
                for plan in plans:
                    RunFolder(plan.folder).clear()
            jobs = [self._job(plan, workers) for plan in plans]
            Queue(jobs, workers, self._reporter, self._planner.settings.time_limit).run()
            return [job.row for job in jobs if job.row is not None]

    def _job(self, plan: Plan, workers: Cluster) -> Job:
        data = self._planner.evaluated(plan)
        # What this process measures needs no device: the backbone is with the workers.
        work = Work(replace(plan, backbone=None), data, RunFolder(plan.folder), _Lines(self._reporter))
        work.where = workers.where
        plan = replace(plan, folder=plan.folder.resolve())
        shared = self._shared_users(data) if has_shared_stage(plan.method_type) else SharedUsers(list, 0)

        @cache
        def shared_state() -> Callable[[], Mapping[str, bytes]]:
            return _sent(_below(plan, "state/shared"))

        def files(names: Sequence[str]) -> Callable[[], Mapping[str, bytes]]:
            if workers.shared:
                return dict
            first, rest = shared_state(), [_sent(_below(plan, name)) for name in names]
            return lambda: {path: content for part in (first, *rest) for path, content in part().items()}

        return Job(work, plan, len(workers.actors), shared, files)

    def _shared_users(self, data: Dataset) -> SharedUsers:
        """All runs of a task send them once."""
        if data.hash not in self._sent:
            self._sent[data.hash] = SharedUsers(_sent(list(data.shared)), len(data.shared))
        return self._sent[data.hash]


def _sent(value: _T) -> Callable[[], _T]:
    """The value in Ray's store, for whoever calls for it."""
    import ray

    reference = ray.put(value)
    return lambda: ray.get(reference)


class _Lines:
    """What a run says, and none of its bars: there is one over all runs."""

    def __init__(self, reporter: Reporter) -> None:
        self.say = reporter.say

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Bar]:
        """A bar that is not shown."""
        yield self

    def move(self, done: int, total: int) -> None:
        """Show nothing."""


def _below(plan: Plan, name: str) -> dict[str, bytes]:
    folder = plan.folder / name
    return {f"{name}/{path}": content for path, content in pack(folder).items()} if folder.exists() else {}


@contextmanager
def _shared_file(path: Path) -> Iterator[Path]:
    """A file with a word that only those can read who see the run folders."""
    path = path.resolve()
    with storing(path):
        path.write_text(secrets.token_hex(8))
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()
