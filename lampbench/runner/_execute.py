"""The phases of one run, measured, journalled and resumable."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import lampbench
from lampbench.core import LampBenchError, Method, Prediction, Query, User, is_out_of_memory
from lampbench.data import Dataset
from lampbench.metrics import Score, score, score_sums
from lampbench.runner._folder import RunFolder
from lampbench.runner._guards import Checks, Guards, history_digest
from lampbench.runner._limits import TimeLimitError, time_limit
from lampbench.runner._meter import Meter, OptimizerWatch
from lampbench.runner._plan import Plan
from lampbench.runner._reach import reachable
from lampbench.runner._row import finished_row, now, open_row
from lampbench.runner._stop import Stop
from lampbench.runner._storage import StorageError

# Answers are written to disk after so many batches.
_BATCHES_A_CHUNK = 4
# What users cost who are kept before their shard ends is in the journal after so many seconds.
_PART_SECONDS = 60.0
# Queries and users from which a way to the golds is looked for.
_LOOKED_AT = 8


class Bar(Protocol):
    """A progress bar."""

    def move(self, done: int, total: int) -> None:
        """Show ``done`` of ``total``."""


class Reporter(Protocol):
    """Where a run shows its progress."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Bar]:
        """A bar for one phase."""

    def say(self, text: str) -> None:
        """A line for the user."""


class BackboneLoader(Protocol):
    """Gives the loaded backbone of a plan; the same one for runs that share it."""

    def __call__(self, plan: Plan) -> tuple[Any, float]:
        """The backbone, and the seconds that loading it took in an earlier run of this process."""


def execute(
    plan: Plan, dataset: Dataset, load_backbone: BackboneLoader, reporter: Reporter, *, force: bool = False
) -> dict[str, Any]:
    """Run ``plan``, or go on where an earlier session of the same identity stopped.

    Args:
        plan: The resolved run.
        dataset: Its data (limited to the first users, where the user said so).
        load_backbone: Gives the language model.
        reporter: Shows progress.
        force: Delete earlier work of the same identity first.

    Returns:
        The row, as written to ``row.json``. A method that raises, or takes longer than the user
        allows, gives a row of status ``failed``.

    Raises:
        KeyboardInterrupt: On Ctrl-C or SIGTERM, after a row of status ``incomplete`` was written.
        LampBenchError: The folder cannot be written, or another process works on the same run.
    """
    folder = RunFolder(plan.folder)
    row = None if force else folder.row()
    if row is not None and row["status"] == "success" and (row.get("swap") or not plan.settings.swap_test):
        reporter.say(f"{plan.task.name} {plan.method}: finished earlier, kept (--force starts over)")
        return row
    with folder.held():
        if force:
            folder.clear()
        return _Execution(plan, dataset, folder, load_backbone, reporter).run()


class _Execution:
    """One session of one run."""

    def __init__(
        self, plan: Plan, dataset: Dataset, folder: RunFolder, load_backbone: BackboneLoader, reporter: Reporter
    ) -> None:
        self.plan = plan
        self.dataset = dataset
        self.folder = folder
        self.load_backbone = load_backbone
        self.reporter = reporter
        self.earlier = folder.journal()
        self.backbone: Any = None
        self.device = plan.backbone.device if plan.backbone else "cpu"
        self.meter = Meter(self.device, self._tokens)
        self.stop = Stop()
        self.phase = "load"
        self.started = time.perf_counter()
        self.tracked = 0.0

    def run(self) -> dict[str, Any]:
        self._announce()
        try:
            with self.stop.listening(), time_limit(self.plan.settings.time_limit):
                row = self._phases()
        except KeyboardInterrupt:
            self._end_session("incomplete")
            self.reporter.say(f"{self.name}: interrupted; the same command continues")
            raise
        except StorageError:
            # There is no place to write what happened; what is there is whole.
            raise
        except Exception as error:  # whatever a plug-in raises ends this run, not the others
            return self._failed(error)
        self.folder.write(self.folder.row_path, row)
        return row

    @property
    def name(self) -> str:
        return f"{self.plan.task.name} {self.plan.method}"

    def _phases(self) -> dict[str, Any]:
        method = self._load()
        self._fit_shared(method)
        guards = self._guards(method)
        self._adapt(method)
        self._predict(method)
        scores = self._score()
        parameters = method.parameters()
        checks = {"golds": self._golds_check(), **self._checks(method, guards)}
        swapped = self._swap(method) if self.plan.settings.swap_test else None
        self._log_end()
        return finished_row(self.plan, self.dataset, self.folder, parameters, scores, swapped, checks)

    def _failed(self, error: Exception) -> dict[str, Any]:
        cause = _cause(error, self.phase)
        self.folder.message("".join(traceback.format_exception(error)))
        # What a method that ran out of memory holds is needed to write the row.
        traceback.clear_frames(error.__traceback__)
        row = self._end_session("failed", cause)
        self.reporter.say(f"{self.name}: failed: {cause} (details: {self.folder.log_path})")
        logging.getLogger("lampbench").debug("run failed", exc_info=error)
        return row

    def _end_session(self, status: str, error: str | None = None) -> dict[str, Any]:
        """The row of a run that did not come to its end, written."""
        self._log_end()
        row = open_row(self.plan, self.dataset, self.folder, status, error)
        self.folder.write(self.folder.row_path, row)
        return row

    def _announce(self) -> None:
        answered = len(self.folder.predictions())
        adapted = len(self._users_done())
        self.folder.log({"event": "session_start", "time": now()})
        self.folder.message(f"{now()} session with lampbench {lampbench.__version__}: {' '.join(sys.argv)}")
        if self.earlier:
            self.reporter.say(
                f"{self.name}: continues: {adapted} of {len(self.dataset.users)} users "
                f"and {answered} of {len(self.dataset.queries)} queries are done"
            )

    def _load(self) -> Method:
        plan = self.plan
        with self._phase("load", 1) as bar:
            with self._measured("load") as event:
                event["seconds"] += plan.data_seconds
                if plan.backbone:
                    self.backbone, seconds = self.load_backbone(plan)
                    event["seconds"] += seconds
                method = plan.method_type(
                    task=plan.task, config=plan.config, seed=plan.settings.seed, backbone=self.backbone
                )
            bar.move(1, 1)
        if method.engines:
            method.engine = plan.settings.engine
        method.say = self.reporter.say
        if self.backbone is not None:
            self.backbone.warm_up()
        return method

    def _fit_shared(self, method: Method) -> None:
        if type(method).fit_shared is Method.fit_shared:
            return
        with self._phase("fit_shared", 1) as bar:
            method.progress = self._stoppable(bar.move)
            if self._done("fit_shared") and self.folder.shared_state.exists():
                method.load_shared(self.folder.shared_state, self.dataset.shared)
            else:
                self._fit_shared_in_parts(method)
            bar.move(1, 1)

    def _fit_shared_in_parts(self, method: Method) -> None:
        """Fit, keeping the method's snapshots; what each part cost is in the journal, whatever comes next."""
        snapshot = self.folder.shared_snapshot
        with ExitStack() as part:
            events = [part.enter_context(self._measured("fit_shared"))]

            def keep(write: Callable[[Path], None]) -> None:
                with self.folder.new_state(snapshot) as state:
                    write(state)
                events[-1]["part"] = True
                part.close()
                self.stop.check()
                events.append(part.enter_context(self._measured("fit_shared")))

            method.kept = snapshot if snapshot.exists() else None
            method.keep = keep
            method.fit_shared(self.dataset.shared)
            with self.folder.new_state(self.folder.shared_state) as state:
                method.save_shared(state)
        self.folder.remove(snapshot)

    def _adapt(self, method: Method) -> None:
        if type(method).adapt is Method.adapt:
            return
        users, done = self.dataset.users, self._users_done()
        finished = 0
        with self._phase("adapt", len(users)) as bar:
            for user in users:
                if user.id in done:
                    method.load_user(user, self.folder.user_state(user.id))
                    finished += 1
                    bar.move(finished, len(users))
            # Users of like length together: none waits long for another of the same shard.
            waiting = sorted((user for user in users if user.id not in done), key=lambda user: -len(user.history))
            for start in range(0, len(waiting), method.users_at_once):
                shard = waiting[start : start + method.users_at_once]
                method.progress = self._stoppable(partial(_move_within, bar, finished, len(shard), len(users)))
                self._adapt_shard(method, shard)
                finished += len(shard)
                bar.move(finished, len(users))
                self.stop.check()

    def _adapt_shard(self, method: Method, users: Sequence[User]) -> None:
        """Adapt users together; what the method keeps early stays, whatever happens to the others."""
        waiting = {user.id: history_digest(user) for user in users}
        failure: BaseException | None = None
        with ExitStack() as part:
            begun = time.monotonic()
            event = part.enter_context(self._measured("adapt", users=[], data={}))

            def keep(user_id: str) -> None:
                nonlocal begun, event
                if time.monotonic() - begun > _PART_SECONDS:
                    part.close()
                    begun, event = time.monotonic(), part.enter_context(self._measured("adapt", users=[], data={}))
                if user_id not in waiting:
                    raise LampBenchError(f"keep_user was called for {user_id!r}, who is not waiting to be adapted")
                with self.folder.new_state(self.folder.user_state(user_id)) as state:
                    method.save_user(user_id, state)
                event["users"].append(user_id)
                event["data"][user_id] = waiting.pop(user_id)

            method.keep_user = keep
            try:
                method.adapt(users)
                for user_id in list(waiting):
                    keep(user_id)
            except BaseException as error:
                if not event["users"]:
                    raise
                failure = error
        if failure is not None:
            raise failure

    def _predict(self, method: Method) -> None:
        queries = self.dataset.queries
        answered = self.folder.predictions()
        waiting = [query for query in queries if query.id not in answered]
        done = len(queries) - len(waiting)
        with self._phase("predict", len(queries)) as bar:
            bar.move(done, len(queries))
            for chunk in _chunks(waiting, self.chunk):
                with self._measured("predict"):
                    outputs = _checked(method.predict(chunk), chunk)
                    self.folder.add_predictions(
                        Prediction(query.id, query.user_id, output)
                        for query, output in zip(chunk, outputs, strict=True)
                    )
                done += len(chunk)
                bar.move(done, len(queries))
                self.stop.check()

    def _guards(self, method: Method) -> Guards | None:
        if type(method).adapt is Method.adapt:
            return None
        with self._phase("check", 1) as bar, self._measured("check"):
            guards = Guards(method, self.dataset, lambda queries: _checked(method.predict(queries), queries))
            bar.move(1, 1)
        return guards

    def _checks(self, method: Method, guards: Guards | None) -> Checks:
        """What the guards found; a method that they make raise has failed them."""
        if guards is None:
            return {}
        with self._phase("check", 1) as bar, self._measured("check"):
            try:
                checks = guards.after(
                    lambda user: method.load_user(user, self.folder.user_state(user.id)),
                    _chunks(self.dataset.queries, self.chunk),
                    self.folder.predictions(),
                )
            except StorageError:
                raise
            except Exception as error:  # a stranger's forget or load_user
                self.folder.message("".join(traceback.format_exception(error)))
                checks = {"isolation": {"passed": False, "error": _cause(error, self.phase)}}
            bar.move(1, 1)
        return checks | {"training_data": self._training_data()}

    def _golds_check(self) -> dict[str, Any]:
        """Whether a method could come from what it is handed to the golds."""
        data = self.dataset
        way = reachable(
            [*data.queries[:_LOOKED_AT], *data.users[:_LOOKED_AT]],
            lambda item: item is data.golds or isinstance(item, Dataset),
        )
        return {"passed": way is None, "way": way}

    def _training_data(self) -> dict[str, Any]:
        """Whether every user's state was made of that user's history as it is now."""
        made = {
            user: own
            for event in self.folder.journal()
            if event["event"] == "adapt"
            for user, own in event.get("data", {}).items()
        }
        different = sum(made.get(user.id) != history_digest(user) for user in self.dataset.users)
        return {"passed": different == 0, "users": len(self.dataset.users), "different": different}

    def _score(self) -> dict[str, Score]:
        # numpy waits until a command has work for it.
        from lampbench.metrics import additive, sums_to_json

        task, queries = self.plan.task, self.dataset.queries
        # Two made-up answers: what scoring imports is loaded outside of what is measured.
        score(task, ["1", "1"], ["1", "1"], ["a", "b"])
        with self._phase("score", 1) as bar:
            with self._measured("score"):
                answers = self.folder.predictions()
                outputs = [answers[query.id] for query in queries]
                golds = [self.dataset.golds[query.id] for query in queries]
                users = [query.user_id for query in queries]
                sums = additive(task, outputs, golds, users)
                self.folder.write(self.folder.sums_path, sums_to_json(users, sums))
                scores = score_sums(task, sums, len(queries))
                official = [{"id": q.id, "output": output} for q, output in zip(queries, outputs, strict=True)]
                label = {"about": self.dataset.label} if self.dataset.label else {}
                self.folder.write(self.folder.official_path, {"task": task.evaluator_name, **label, "golds": official})
            bar.move(1, 1)
        return scores

    def _swap(self, method: Method) -> dict[str, Score] | None:
        """Scores when every user has the next user's history and state; None where there is nothing to swap."""
        users, queries = list(self.dataset.users), self.dataset.queries
        if type(method).adapt is Method.adapt or len(users) < 2:
            return None
        outputs: list[str] = []
        with self._phase("swap", len(queries)) as bar, self._measured("swap"):
            for user, other in zip(users, [*users[1:], users[0]], strict=True):
                method.forget(user.id)
                method.load_user(User(user.id, other.history), self.folder.user_state(other.id))
            for chunk in _chunks(queries, self.chunk):
                outputs += _checked(method.predict(chunk), chunk)
                bar.move(len(outputs), len(queries))
                self.stop.check()
        golds = [self.dataset.golds[query.id] for query in queries]
        return score(self.plan.task, outputs, golds, [query.user_id for query in queries])

    @property
    def chunk(self) -> int:
        """Queries between two writes to disk."""
        return self.plan.settings.batch_size * _BATCHES_A_CHUNK

    def _phase(self, name: str, total: int) -> AbstractContextManager[Bar]:
        self.phase = name
        return self.reporter.phase(f"{self.name} {name}", total)

    def _stoppable(self, move: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """A method's progress: between two of its steps a run can be stopped."""

        def moved(done: int, total: int) -> None:
            move(done, total)
            self.stop.check()

        return moved

    @contextmanager
    def _measured(self, phase: str, **details: Any) -> Iterator[dict[str, Any]]:
        """Measure the block and write what it cost to the journal once it has ended well.

        Yields the journal's event: seconds that the block adds to it were spent elsewhere for it.
        """
        event: dict[str, Any] = {"event": phase, "seconds": 0.0, **details}
        watch = OptimizerWatch()
        watched = watch.watch() if phase in ("fit_shared", "adapt") else nullcontext()
        with self.meter.measure() as measurement, watched:
            yield event
        self.tracked += measurement.seconds
        event["seconds"] += measurement.seconds
        event["memory"] = measurement.memory
        event["tokens"] = measurement.tokens
        if phase in ("fit_shared", "adapt"):
            event["optimizer_parameters"] = watch.largest
        self.folder.log(event)

    def _log_end(self) -> None:
        untracked = time.perf_counter() - self.started - self.tracked
        self.folder.log({"event": "session_end", "time": now(), "untracked": untracked})

    def _done(self, phase: str) -> bool:
        return any(event["event"] == phase and not event.get("part") for event in self.earlier)

    def _users_done(self) -> set[str]:
        return {user for event in self.earlier if event["event"] == "adapt" for user in event["users"]}

    def _tokens(self) -> dict[str, int]:
        return dict(vars(self.backbone.usage)) if self.backbone is not None else {}


def _move_within(bar: Bar, before: int, users: int, total: int, done: int, all_steps: int) -> None:
    """Move a bar of users by the steps of those who are being adapted."""
    bar.move(before + users * done // max(1, all_steps), total)


def _chunks(queries: Sequence[Query], size: int) -> Iterator[list[Query]]:
    """Queries in chunks of about ``size`` that keep a user's queries together."""
    by_user: dict[str, list[Query]] = {}
    for query in queries:
        by_user.setdefault(query.user_id, []).append(query)
    chunk: list[Query] = []
    for own in by_user.values():
        chunk.extend(own)
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _checked(outputs: Sequence[str], queries: Sequence[Query]) -> Sequence[str]:
    if isinstance(outputs, str) or len(outputs) != len(queries):
        found = "one string" if isinstance(outputs, str) else f"{len(outputs)} answers"
        raise LampBenchError(f"predict returned {found} for {len(queries)} queries; expected one string a query")
    for query, output in zip(queries, outputs, strict=True):
        if not isinstance(output, str):
            raise LampBenchError(f"predict returned {output!r} for query {query.id!r}; expected a string")
    return outputs


def _cause(error: Exception, phase: str) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, LampBenchError):
        return f"{phase}: {text}" if isinstance(error, TimeLimitError) else text
    if is_out_of_memory(error):
        return (
            f"{phase}: out of memory ({text or type(error).__name__}); use a smaller --batch-size or model, or allow "
            "more (--memory-limit)"
        )
    return f"{type(error).__name__}: {text}"
