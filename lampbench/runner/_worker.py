"""What does units: any run's, one after another, on a backbone that is loaded once."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lampbench.core import AskedUser, InputError, LampBenchError, Method, Parameters, Prediction, Query
from lampbench.runner._checks import Checks, Guards, answers_of, histories_digest, history_digest
from lampbench.runner._failures import StorageError, TimeLimitError, cause, storing
from lampbench.runner._folder import RunFolder
from lampbench.runner._meter import Meter, OptimizerWatch
from lampbench.runner._plan import Plan
from lampbench.runner._units import Sink, Unit, adapts_users, has_shared_stage

# The phases that take a unit's time; its others are short.
_LONG_PHASES = {"fit": ("fit_shared",), "shard": ("adapt", "predict"), "ask": ("swap",)}


class Worker:
    """Does units.

    Args:
        backbone: One that is loaded already; None to load each plan's own when it is first needed.

    Attributes:
        batches_per_chunk: Answers are handed on after so many batches.
        shown_every: Seconds between two looks at how far a batch of answers is.
        part_seconds: What users who are kept before their shard ends cost is in the journal after so many seconds.
        phase: The phase that is under way, for messages about failures.
        loaded: Whether the last unit came so far that its method could be used.
    """

    batches_per_chunk = 4
    shown_every = 0.5
    part_seconds = 60.0

    def __init__(self, backbone: Any = None) -> None:
        self.phase = "load"
        self.loaded = False
        self._backbone = backbone
        self._load_seconds = 0.0
        # Runs that were charged for the backbone.
        self._charged: set[str] = set()
        self._run = ""
        self._method: Method | None = None

    def do(self, unit: Unit, sink: Sink, check: Callable[[], None]) -> None:
        """Do a unit; results go to ``sink`` as soon as they are whole.

        Args:
            unit: The unit. States of its run are read from, and written below, ``unit.plan.folder``.
            sink: Takes the results.
            check: Called wherever the unit may end early; raises KeyboardInterrupt if it is to.

        Raises:
            BaseException: Whatever a plug-in raises.
        """
        self.phase, self.loaded = "load", False
        task = _Task(self, unit, sink, check)
        try:
            method = self._ready(task)
            self.loaded = True
            # Loading takes long, and nothing of it is lost.
            check()
            if unit.kind == "fit":
                task.fit(method)
            elif unit.kind == "shard":
                task.shard(method)
            else:
                task.ask(method)
        except BaseException:
            # The state of a method that was interrupted is not known.
            self._method = None
            raise
        self._forget(method, unit.users)

    def _ready(self, task: _Task) -> Method:
        """The run's method with its shared state, nobody adapted; that of the unit before, if the run is the same."""
        plan = task.unit.plan
        if self._run == plan.run_id and self._method is not None:
            method = self._method
            task.backbone = method.backbone
        else:
            # The state of the last run is freed before that of this one is loaded.
            self._method = None
            method = self._load(task)
            if task.unit.kind != "fit" and has_shared_stage(plan):
                with _resuming():
                    method.load_shared(task.folder.shared_state, task.unit.shared)
            self._run, self._method = plan.run_id, method
        method.say = task.sink.say
        return method

    def _load(self, task: _Task) -> Method:
        plan = task.unit.plan
        with task.measured("load") as event:
            if plan.backbone:
                task.backbone = self._loaded_backbone(plan)
                if self._charged and plan.run_id not in self._charged:
                    # An earlier run of this process loaded it.
                    event["seconds"] += self._load_seconds
                    event["charged"] = self._load_seconds
                self._charged.add(plan.run_id)
            method = plan.method_type(
                task=plan.task, config=plan.config, seed=plan.settings.seed, backbone=task.backbone
            )
        if method.engines:
            method.engine = plan.settings.engine
        if task.backbone is not None:
            task.backbone.warm_up()
        return method

    def _loaded_backbone(self, plan: Plan) -> Any:
        if self._backbone is None and plan.backbone is not None and plan.decoding is not None:
            from lampbench.backbone import ServedBackbone, ServedInfo

            settings, start = plan.settings, time.perf_counter()
            if isinstance(plan.backbone, ServedInfo):
                # Every run's own: replies are kept by run, and there is nothing to load.
                return ServedBackbone(
                    plan.backbone,
                    decoding=plan.decoding,
                    at_once=settings.batch_size,
                    seed=settings.seed,
                    replies=RunFolder(plan.folder).replies(),
                )
            from lampbench.backbone import TransformersBackbone

            self._backbone = TransformersBackbone.load(
                plan.backbone, decoding=plan.decoding, batch_size=settings.batch_size, seed=settings.seed
            )
            self._load_seconds = time.perf_counter() - start
        return self._backbone

    def _forget(self, method: Method, users: Sequence[AskedUser]) -> None:
        """Forget all users before the next unit begins."""
        try:
            for asked in users:
                method.forget(asked.user.id)
        except Exception:  # a third party's forget; the guards report it
            self._method = None


class _Task:
    """One unit being done: its phases, and how each stretch of work is measured."""

    def __init__(self, worker: Worker, unit: Unit, sink: Sink, check: Callable[[], None]) -> None:
        self.unit = unit
        self.sink = sink
        self.folder = RunFolder(unit.plan.folder)
        self.backbone: Any = None
        self._worker = worker
        self._check = check
        self._meter = Meter(unit.plan.backbone.device if unit.plan.backbone else "cpu", self._tokens)

    def fit(self, method: Method) -> None:
        """The shared stage. The method's snapshots are kept, and what each part cost is in the journal."""
        with ExitStack() as part:
            event = part.enter_context(self.measured("fit_shared"))

            def keep(write: Callable[[Path], None]) -> None:
                nonlocal event
                with self._new_state("shared-snapshot") as state:
                    write(state)
                self.sink.keep("snapshot", state)
                event["part"] = True
                part.close()
                self._check()
                event = part.enter_context(self.measured("fit_shared"))

            method.progress = self._progress
            method.kept = self.folder.shared_snapshot if self.folder.shared_snapshot.exists() else None
            method.keep = keep
            method.fit_shared(self.unit.shared)
            if self.unit.plan.joint:
                event["joint"] = histories_digest(self.unit.joint)
                method.fit_joint(self.unit.joint)
            with self._new_state("shared") as state:
                method.save_shared(state)
            self.sink.keep("shared", state)

    def shard(self, method: Method) -> None:
        """Adapt users, answer their queries, and check that users are kept apart."""
        adapts = adapts_users(type(method))
        guards = self._guards(method) if adapts else None
        if adapts:
            self._adapt(method)
        self._predict(method)
        checks = {} if guards is None else self._found(method, guards)
        self._log_shard(method, checks)

    def ask(self, method: Method) -> None:
        """Answer queries with the states that the unit names; without users, only look at the method."""
        if not self.unit.users:
            self._log_shard(method, {})
            return
        answers: dict[str, str] = {}
        with self.measured("swap"):
            for asked in self.unit.users:
                if asked.user.id in self.unit.states:
                    method.load_user(asked.user, self._saved(asked.user.id))
            total = sum(len(asked.queries) for asked in self.unit.users)
            for chunk in self._chunks():
                with self._heard(method, len(answers), len(chunk), total):
                    answers |= zip([query.id for query in chunk], answers_of(method, chunk), strict=True)
                self._progress(len(answers), total)
        self.sink.asked(answers)

    def _log_shard(self, method: Method, checks: Checks) -> None:
        parameters = method.parameters()
        if not isinstance(parameters, Parameters):
            raise LampBenchError(f"parameters returned {parameters!r}; expected lampbench.Parameters")
        found = {"parameters": asdict(parameters), "checks": checks, "guarded": sorted(self.unit.guarded)}
        self.sink.log({"event": "shard", "id": self.unit.name, **found})

    def _guards(self, method: Method) -> Guards | None:
        users = [asked for asked in self.unit.users if asked.user.id in self.unit.guarded and asked.user.history]
        if not users:
            return None
        with self.measured("check"):
            guards = Guards(method, users, self.unit.users, small=self.unit.small)
        self._check()
        return guards

    def _found(self, method: Method, guards: Guards) -> Checks:
        """What the guards found; a method that they make raise has failed them."""
        with self.measured("check"):
            try:
                return guards.after(lambda user: method.load_user(user, self._saved(user.id)))
            except (StorageError, TimeLimitError):
                raise
            except Exception as error:  # a third party's forget or load_user
                self.sink.message("".join(traceback.format_exception(error)))
                return {"isolation": {"passed": False, "error": cause(error, self._worker.phase)}}

    def _adapt(self, method: Method) -> None:
        """Adapt users together; what the method keeps early stays, whatever happens to the others.

        Users without a history are not adapted: every method answers them as it answers a stranger.
        """
        method.progress = self._progress
        users = [asked.user for asked in self.unit.users]
        for user in users:
            if user.id in self.unit.states:
                with _resuming():
                    method.load_user(user, self._saved(user.id))
        users = [user for user in users if user.history and user.id not in self.unit.states]
        if not users:
            return
        waiting = {user.id: history_digest(user) for user in users}
        failure: BaseException | None = None
        with ExitStack() as part:
            begun = time.monotonic()
            event = part.enter_context(self.measured("adapt", users=[], data={}))

            def keep(user_id: str) -> None:
                nonlocal begun, event
                if time.monotonic() - begun > self._worker.part_seconds:
                    part.close()
                    begun, event = time.monotonic(), part.enter_context(self.measured("adapt", users=[], data={}))
                if user_id not in waiting:
                    raise LampBenchError(f"keep_user was called for {user_id!r}, who is not waiting to be adapted")
                with self._new_state(self.folder.user_state(user_id).name) as state:
                    method.save_user(user_id, state)
                self.sink.keep("user", state, user_id)
                event["users"].append(user_id)
                event["data"][user_id] = waiting.pop(user_id)

            method.keep_user = keep
            try:
                # Training tells itself how far it is; others may ask the model once per user.
                with self._heard(method, 0, 0 if method.engines else len(users), len(users)):
                    method.adapt(users)
                for user_id in list(waiting):
                    keep(user_id)
            except BaseException as error:
                if not event["users"]:
                    raise
                failure = error
        if failure is not None:
            raise failure
        self._check()

    def _predict(self, method: Method) -> None:
        """Ask the queries without an answer; answers are passed on in chunks."""
        users = {query.id: asked.user.id for asked in self.unit.users for query in asked.queries}
        done = len(self.unit.answered)
        for chunk in self._chunks():
            with self.measured("predict"), self._heard(method, done, len(chunk), len(users)):
                outputs = zip(chunk, answers_of(method, chunk), strict=True)
                self.sink.answer([Prediction(query.id, users[query.id], output) for query, output in outputs])
            done += len(chunk)
            self._progress(done, len(users))

    def _chunks(self) -> Iterator[list[Query]]:
        """Unanswered queries in chunks that keep a user's queries together."""
        size = self.unit.plan.settings.batch_size * self._worker.batches_per_chunk
        chunk: list[Query] = []
        for asked in self.unit.users:
            chunk += [query for query in asked.queries if query.id not in self.unit.answered]
            if len(chunk) >= size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _saved(self, user_id: str) -> Path:
        return self.folder.user_state(self.unit.states.get(user_id, user_id))

    @contextmanager
    def _new_state(self, name: str) -> Iterator[Path]:
        """An empty folder to write a state into."""
        temporary = self.folder.unfinished / name
        with storing(temporary):
            if temporary.exists():
                shutil.rmtree(temporary)
            temporary.mkdir(parents=True)
            yield temporary

    @contextmanager
    def _heard(self, method: Method, done: int, most: int, total: int) -> Iterator[None]:
        """Show how far the backbone is with at most so many more of ``total`` prompts."""
        watch, answered, shown = getattr(method.backbone, "watch", None), 0.0, time.monotonic()

        def hear(prompts: float) -> None:
            nonlocal answered, shown
            answered = min(most, answered + prompts)
            if answered and time.monotonic() - shown > self._worker.shown_every:
                shown = time.monotonic()
                self._move(done + answered, total)

        with nullcontext() if watch is None else watch.heard_by(hear):
            yield

    def _progress(self, done: float, total: int) -> None:
        """A method's progress: between two of its steps a unit can be stopped."""
        self._move(done, total)
        self._check()

    def _move(self, done: float, total: int) -> None:
        phases = _LONG_PHASES[self.unit.kind]
        place = phases.index(self._worker.phase) if self._worker.phase in phases else 0
        self.sink.move((place + done / max(1, total)) / len(phases))

    @contextmanager
    def measured(self, phase: str, **details: Any) -> Iterator[dict[str, Any]]:
        """Measure the block, and log what it cost if it succeeds.

        Yields the journal's event: seconds that the block adds to it were spent elsewhere for it.
        """
        self._worker.phase = phase
        event: dict[str, Any] = {"event": phase, "seconds": 0.0, **details}
        watch = OptimizerWatch()
        trains = phase in ("fit_shared", "adapt")
        if self.backbone is not None:
            # A maximum has no difference, so it starts again.
            self.backbone.usage.longest_prompt = 0
        with self._meter.measure() as measurement, watch.watch() if trains else nullcontext():
            yield event
        event["seconds"] += measurement.seconds
        event["memory"], event["tokens"] = measurement.memory, measurement.tokens
        if trains:
            event["optimizer_parameters"] = watch.largest
        self.sink.log(event)

    def _tokens(self) -> dict[str, int]:
        return dict(vars(self.backbone.usage)) if self.backbone is not None else {}


@contextmanager
def _resuming() -> Iterator[None]:
    """Says what helps if an earlier session's state cannot be read."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; --force starts the run over") from error
