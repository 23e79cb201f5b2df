"""A method on trial: built, trained and asked as the runner does it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lampbench.core import Method, Query, RunContext, User, protocols
from lampbench.rows import RunRow
from lampbench.runner import (
    LocalExecutor,
    Plan,
    Planner,
    RunFolder,
    Settings,
    Skip,
    has_shared_stage,
    load_method_class,
    load_task,
)
from lampbench.testing._contract import NotTried, broken
from lampbench.testing._fixture import Fixture, fixture
from lampbench.testing._globals import seed_globals
from lampbench.testing._state_files import contents

PROTOCOL = "mini"


# Query id -> answer.
Answers = dict[str, str]

_LONGEST = 60


@dataclass(frozen=True)
class MethodSubject:
    """A method by name, the tasks that it is tried on, and the settings that are not the defaults."""

    name: str
    tasks: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    _trials: dict[str, Trial] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def kind(self) -> type[Method]:
        """Its class; raises InputError if that cannot be imported."""
        return load_method_class(self.name)

    def trial(self, task: str) -> Trial:
        """The method on a task; made once."""
        return self._trials.setdefault(task, Trial(self, task))

    def source(self) -> str | None:
        """The file of its class."""
        try:
            return inspect.getsourcefile(self.kind)
        except Exception:  # a class without a file, or none that can be imported
            return None

    def supports(self, task: str) -> Any:
        """What its ``supports`` says of a task."""
        return self.kind.supports(load_task(task))


@dataclass(frozen=True)
class RealRun:
    """What a run of the real runner left.

    Attributes:
        row: Its row.
        outputs: Query id -> answer.
        state: Name -> content of every file of the shared stage's and the users' states.
        log: Its log, with the traceback if it failed.
    """

    row: RunRow
    outputs: Mapping[str, str]
    state: Mapping[str, bytes]
    log: str


class Trial:
    """One method on one task. What several checks need is made once.

    A method that is built here starts from the same global random state every time, so that what
    differs between two of them is what a check changed.
    """

    def __init__(self, subject: MethodSubject, task: str) -> None:
        self.subject = subject
        self.task = task

    @cached_property
    def plan(self) -> Plan:
        """The run, planned by the runner; raises InputError if the config is wrong."""
        plan = _planner(_engine(self.subject.kind)).plan(self.subject.name, self.task, self.subject.settings)
        if isinstance(plan, Skip):
            raise NotTried(plan.reason)
        return plan

    @property
    def context(self) -> RunContext:
        """What the config was resolved with."""
        shape = self.plan.backbone.shape if self.plan.backbone else None
        recommended = protocols().load(PROTOCOL).recommended.get(self.subject.name, {})
        return RunContext(PROTOCOL, shape, self.subject.name, recommended)

    @property
    def fixture(self) -> Fixture:
        """The users."""
        return _fixture(self.task)

    @property
    def users(self) -> list[User]:
        """The evaluated users."""
        return self.fixture.users

    @property
    def queries(self) -> list[Query]:
        """Their queries."""
        return self.fixture.queries

    @property
    def questions(self) -> list[Query]:
        """What is asked to compare answers: their queries, and one of a user who is never adapted."""
        return [*self.queries, self.fixture.stranger]

    @property
    def fits(self) -> bool:
        """Whether the method has a shared stage."""
        return has_shared_stage(self.plan)

    @property
    def adapts(self) -> bool:
        """Whether the method learns from users."""
        return self.plan.method_type.adapt is not Method.adapt

    def new(self, config: Any = None) -> Method:
        """A new method, which knows nothing yet; ``config`` is another than the run's."""
        plan = self.plan
        seed_globals(0)
        method = plan.method_type(
            task=plan.task, config=config or plan.config, seed=plan.settings.seed, backbone=self._backbone
        )
        if method.engines:
            method.engine = plan.settings.engine
        return method

    def fitted(self, config: Any = None) -> Method:
        """A new method after the shared stage; no evaluated user was adapted, or met but in joint training."""
        method = self.new(config)
        if self.fits:
            method.fit_shared(self.fixture.data.shared)
        if self.plan.joint:
            method.fit_joint(self.users)
        return method

    def adapt(self, method: Method, users: Sequence[User]) -> None:
        """Adapt users, as many per call as the method takes."""
        for start in range(0, len(users), method.users_at_once):
            method.adapt(users[start : start + method.users_at_once])

    @cached_property
    def unadapted(self) -> Answers:
        """The answers of a method that adapted nobody."""
        return ask(self.fitted(), self.questions)

    @cached_property
    def method(self) -> Method:
        """An adapted method. Checks may ask and save it, and must not change it."""
        # First, so that it cannot know of users by way of what methods share behind our back.
        with suppress(Exception):
            _ = self.unadapted
        method = self.fitted()
        self.adapt(method, self.users)
        return method

    def taken(self) -> Method:
        """An adapted method to do anything with."""
        method = self.method
        del self.__dict__["method"]
        return method

    @cached_property
    def outputs(self) -> Any:
        """Whatever its ``predict`` returned for the fixture's queries."""
        return self.method.predict(self.queries)

    @cached_property
    def answers(self) -> Answers:
        """The answers to all questions; raises if there is not one string each, however they are asked."""
        by_query(self.queries, self.outputs)
        for queries in ([], self.queries[:1]):
            ask(self.method, queries)
        return ask(self.method, self.questions)

    @cached_property
    def newcomer(self) -> Answers:
        """The answers of another method, which adapted nobody, while the first one knows its users."""
        _ = self.method
        return ask(self.fitted(), self.questions)

    @property
    def adapting_shows(self) -> bool:
        """Whether adapting changes an answer: what else should the checks of users see?"""
        return self.answers != self.unadapted

    @cached_property
    def run(self) -> RealRun:
        """The fixture, run by the real runner in a folder that is gone afterwards."""
        # First, so that nothing that methods share behind our back, and the run forgets, is missed there.
        _ = self.newcomer
        with TemporaryDirectory(prefix="lampbench-contract-") as folder, chdir(folder):
            own = RunFolder(Path(folder) / "run")
            plan = replace(self.plan, dataset=self.fixture.data, folder=own.path)
            # Not where the methods built here start: a method must not draw from them.
            seed_globals(1)
            row = LocalExecutor(_Silence(), self._backbone).run(plan)
            return RealRun(row, own.predictions(), contents(own.path / "state"), own.log_path.read_text("utf-8"))

    @cached_property
    def _backbone(self) -> Any:
        from lampbench.backbone import BackboneInfo, TransformersBackbone

        if not isinstance(self.plan.backbone, BackboneInfo) or self.plan.decoding is None:
            return None

        settings = self.plan.settings
        return TransformersBackbone.load(
            self.plan.backbone,
            decoding=self.plan.decoding,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )


class _Silence:
    """A reporter that shows nothing."""

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[_Silence]:
        yield self

    @contextmanager
    def runs(self, total: int) -> Iterator[_Silence]:
        yield self

    def move(self, done: float, where: object) -> None: ...

    def say(self, text: str) -> None: ...


def _engine(kind: type[Method]) -> str:
    """The engine of a run by default, or the method's own if it has another."""
    default = Settings().engine
    return default if default in kind.engines or not kind.engines else kind.engines[0]


@cache
def _planner(engine: Any) -> Planner:
    # Reads each task's data once for all methods.
    return Planner(Settings(protocol=PROTOCOL, device="cpu", dtype="float32", engine=engine))


@cache
def _fixture(task: str) -> Fixture:
    # One for all methods: the golds of two could not be told apart.
    the_task = load_task(task)
    return fixture(the_task, _planner(Settings().engine).dataset(the_task))


def ask(method: Method, queries: Sequence[Query]) -> Answers:
    """The method's answers; raises ContractError if it does not give one string per query."""
    return by_query(queries, method.predict(queries))


def by_query(queries: Sequence[Query], outputs: Any) -> Answers:
    """What ``predict`` returned, by query; raises ContractError if it is not one string per query."""
    if isinstance(outputs, str) or not isinstance(outputs, Sequence):
        broken(f"predict returned a {type(outputs).__name__} for {len(queries)} queries; expected a list of strings")
    if len(outputs) != len(queries):
        broken(f"predict returned {len(outputs)} answers for {len(queries)} queries; expected one per query")
    for query, output in zip(queries, outputs, strict=True):
        if not isinstance(output, str):
            broken(f"predict returned {output!r} for the query {query.id!r}; expected a string")
    return dict(zip([query.id for query in queries], outputs, strict=True))


def same(expected: Mapping[str, str], found: Mapping[str, str], when: str) -> None:
    """Raises ContractError if answers differ; ``when`` says what was done, as in "after forgetting"."""
    different = [query for query in found if found[query] != expected[query]]
    if different:
        first = different[0]
        broken(
            f"{when}, {len(different)} of {len(found)} answers differ; the query {first!r} "
            f"gets {_short(found[first])} instead of {_short(expected[first])}"
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")
