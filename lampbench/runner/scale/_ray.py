"""The executor on Ray: from plans to rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar

from lampbench.core import LabelledUser
from lampbench.rows import RunRow
from lampbench.runner._folder import RunFolder
from lampbench.runner._plan import Plan
from lampbench.runner._plugin_file import plugin_modules
from lampbench.runner._run import Reporter, Run, finished_earlier
from lampbench.runner._stages import SharedStages
from lampbench.runner._units import Waiting
from lampbench.runner.scale._actor import Files, Sent, pack
from lampbench.runner.scale._cluster import ClusterSettings, cluster
from lampbench.runner.scale._queue import Queue

_T = TypeVar("_T")


class RayExecutor:
    """Does the runs of one command on the workers of a Ray cluster.

    A unit that fails, or whose worker dies, is given out again, to a new process, without what came of it before.
    After three attempts its run is left incomplete, and the same command resumes it.

    Args:
        reporter: Shows progress.
        settings: Which workers.
    """

    def __init__(self, reporter: Reporter, settings: ClusterSettings) -> None:
        self._reporter = reporter
        self._settings = settings
        self._shared_users: dict[str, Callable[[], Sequence[LabelledUser]]] = {}
        self._shared_states: dict[str, Callable[[], Files]] = {}

    def run_all(self, plans: Sequence[Plan], *, force: bool = False) -> list[RunRow]:
        """The plans' rows, in their order; with ``force`` earlier work of the same identities is deleted first.

        Raises:
            KeyboardInterrupt: On Ctrl-C or SIGTERM, after the rows of unfinished runs were written.
            InputError: There are no such workers.
            LampBenchError: A folder cannot be written, or another process works on one of the runs.
        """
        rows = [None if force else finished_earlier(plan, self._reporter.say) for plan in plans]
        made = iter(self._run([plan for plan, row in zip(plans, rows, strict=True) if row is None], force))
        return [next(made) if row is None else row for row in rows]

    def _run(self, plans: Sequence[Plan], force: bool) -> list[RunRow]:
        if not plans:
            return []
        device = next((plan.backbone.device for plan in plans if plan.backbone), None)
        with ExitStack() as held:
            # Earlier work is deleted only once there are workers that do it again.
            workers = held.enter_context(cluster(self._settings, device, self._reporter.say))
            _send_code()
            records = [held.enter_context(RunFolder(plan.folder).held(force=force)) for plan in plans]
            count, where, say, stages = len(workers.actors), workers.where, self._reporter.say, SharedStages()
            runs = [
                Run(plan, record, say, workers=count, where=where, shared=stages.of(plan, where, fresh=force))
                for plan, record in zip(plans, records, strict=True)
            ]
            Queue(runs, workers, self._sent, self._reporter, plans[0].settings.time_limit).run()
            return [run.result for run in runs]

    def _sent(self, run: Run, waiting: Waiting) -> Sent:
        """A unit with what its worker needs; shared users and a shared state are put into Ray's store once."""
        unit, folder = waiting.make(), run.record
        count, key = len(unit.shared), run.plan.dataset.hash
        if count and key not in self._shared_users:
            self._shared_users[key] = _stored(list(unit.shared))
        if unit.kind != "fit" and run.plan.run_id not in self._shared_states:
            self._shared_states[run.plan.run_id] = _stored(pack(folder.shared_state, folder.path))
        own = [folder.shared_snapshot] if unit.kind == "fit" else map(folder.user_state, unit.states.values())
        return Sent(
            replace(unit, shared=()),
            users=self._shared_users[key] if count else tuple,
            count=count,
            shared_state=self._shared_states.get(run.plan.run_id, dict),
            files={name: content for state in own for name, content in pack(state, folder.path).items()},
        )


def _send_code() -> None:
    """Let workers get the code of plug-in files, which they cannot import."""
    import ray

    cloudpickle: Any = ray.cloudpickle
    for module in plugin_modules():
        cloudpickle.register_pickle_by_value(module)


def _stored(value: _T) -> Callable[[], _T]:
    """The value in Ray's store, to be fetched by calling."""
    import ray

    reference = ray.put(value)
    return lambda: ray.get(reference)
