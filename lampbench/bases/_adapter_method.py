"""Base of methods that train an adapter per user."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampbench.adapters import (
    AdapterSpec,
    EngineOptions,
    PerUser,
    Recipe,
    State,
    TrainingJob,
    acting,
    differ,
    train_alone,
)
from lampbench.bases._training_config import TrainingConfig, filled
from lampbench.core import (
    Context,
    InputError,
    LabelledUser,
    Method,
    Pair,
    Parameters,
    Query,
    RunContext,
    Task,
    User,
    derive_seed,
    digest,
)

if TYPE_CHECKING:
    from torch import Tensor

    from lampbench.backbone import Adapter, Contrast, TransformersBackbone


class AdapterMethod(Method):
    """Train an adapter on each user's history; override ``adapter`` and ``recipe``.

    The base trains many users in one pass, predicts for many users in one batch, saves, loads,
    forgets and counts. Each user's result is what training that user alone gives, and with
    ``--engine solo`` users are trained and asked one after another.

    A method with a shared stage also overrides ``fit_shared`` (calling ``train_shared``),
    ``save_shared`` and ``load_shared``; what that stage made acts through ``beneath``, or in a
    changed ``self.backbone``. A method whose prompts carry something of the user overrides
    ``context``.

    Attributes:
        contrast: How the adapted model is weighed against the unadapted one when an answer is written; None if the
            adapted model answers alone.
    """

    engines = ("stacked", "solo")
    users_at_once = 64
    options = EngineOptions()
    contrast: Contrast | None = None
    backbone: TransformersBackbone

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill the fields of a ``TrainingConfig`` that are None from its preset."""
        return filled(config, context) if isinstance(config, TrainingConfig) else config

    def setup(self) -> None:
        """Start without adapted users."""
        self._states: dict[str, State] = {}
        self._users: dict[str, User] = {}

    @abstractmethod
    def adapter(self) -> AdapterSpec:
        """What every user's adapter is made of."""

    @abstractmethod
    def recipe(self) -> Recipe:
        """How a user's adapter is trained."""

    def start(self, seed: int) -> State:
        """Where a user's adapter begins; by default untrained, random by the user's ``seed``."""
        return self.adapter().fresh(self.backbone, seed)

    def beneath(self) -> Sequence[Adapter | PerUser]:
        """Frozen adapters that act before the user's own: the same for all, or ``PerUser``."""
        return ()

    def unadapted(self) -> Sequence[Adapter | PerUser]:
        """The adapter of a user who was never adapted, or was forgotten."""
        return self.beneath()

    def unadapted_state(self) -> State:
        """The parameters at which a user's adapter acts as ``unadapted`` says; raises ValueError if there are none."""
        return self.adapter().neutral(self.backbone)

    def acting_for(self, user_id: str) -> Sequence[tuple[AdapterSpec, State]]:
        """All that acts for an adapted user on the raw backbone, from the lowest on: what ``lampbench export`` writes.

        By default the user's own adapter. A method with something ``beneath``, or in changed weights, overrides this.

        Raises:
            InputError: More acts than specs and parameters can say.
        """
        kind = type(self)
        if kind.beneath is not AdapterMethod.beneath or kind.at_work is not AdapterMethod.at_work:
            raise InputError("more than the user's own adapter acts on a prompt, or it depends on the prompt")
        return [(self.adapter(), self._states[user_id])]

    def context(self, user: User, query: Query) -> str | Sequence[str] | Context:
        """What goes before the query: one string, pieces with the most important first, or ``task.context(items)``.

        While training, ``query`` is one of the user's history items and ``user.history`` has only
        the earlier ones. An item without a source side is trained on without a context, as in OPPU's
        released code: nothing could be retrieved for it.
        """
        return ()

    def given(self, user: User) -> Callable[[int], Tensor] | None:
        """What adapters are told about each of ``examples(user)`` by its number; None if they depend on none of it."""
        return None

    def at_work(self, states: Sequence[State], users: Sequence[int] | None, queries: Sequence[Query]) -> Adapter:
        """The adapters of users on ``queries``, as ``AdapterSpec.frozen`` makes them."""
        return self.adapter().frozen(self.backbone, states, users)

    def examples(self, user: User) -> Sequence[Pair]:
        """A user's training examples: each history item, as the task words it, after its context."""
        return [self._example(user, i) for i in range(len(user.history))]

    def adapt(self, users: Sequence[User]) -> None:
        """Train each user's adapter on that user's examples alone."""
        jobs = []
        for user in users:
            seed = derive_seed(self.seed, "user", user.id)
            jobs.append(TrainingJob(user.id, seed, self.examples(user), [self.start(seed)], self.given(user)))
        by_id = {user.id: user for user in users}
        for name, state in self.train_each(jobs, self.adapter(), self.recipe(), self.beneath()):
            self._states[name], self._users[name] = state, by_id[name]
            self.keep_user(name)

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        """Answer many users' queries in one batch, each with its user's adapter."""
        answers: dict[str, str] = {}
        known = [query for query in queries if query.user_id in self._states]
        for own in self._asked_together(known):
            numbers = {user: number for number, user in enumerate(dict.fromkeys(query.user_id for query in own))}
            states = [self._states[user] for user in numbers]
            whose = [numbers[query.user_id] for query in own]
            if self.contrast is not None:
                # The unadapted model reads every prompt in the same batch.
                states, whose = [*states, self.unadapted_state()], [*whose, *[len(states)] * len(own)]
            users = None if len(states) == 1 else whose
            adapters = [*self.beneath(), self.at_work(states, users, own)]
            answers |= self._answers(own, adapters, self.contrast)
        unknown = [query for query in queries if query.user_id not in self._states]
        if unknown:
            answers |= self._answers(unknown, self.unadapted())
        return [answers[query.id] for query in queries]

    def forget(self, user_id: str) -> None:
        """Drop the user's adapter and history."""
        self._states.pop(user_id, None)
        self._users.pop(user_id, None)

    def moved(self, user_id: str) -> bool | None:
        """Whether the user's adapter differs, by more than rounding, from where it began."""
        return differ(self._states[user_id], self.start(derive_seed(self.seed, "user", user_id)))

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write the user's adapter."""
        self.adapter().save(self._states[user_id], folder, self.backbone)

    def load_user(self, user: User, folder: Path) -> None:
        """Read the user's adapter."""
        self._states[user.id] = self.adapter().load(folder, self.backbone)
        self._users[user.id] = user

    def parameters(self) -> Parameters:
        """Parameters of one user's adapter."""
        return Parameters(per_user=self.adapter().parameter_count(self.backbone))

    def train_shared(
        self,
        users: Sequence[LabelledUser],
        specs: Sequence[AdapterSpec],
        recipe: Recipe,
        starts: Sequence[State],
        given: Callable[[int], Tensor] | None = None,
    ) -> list[State]:
        """Train adapters together on the shared users' labelled queries.

        An interrupted stage is resumed from its last snapshot (stacked engine).

        Args:
            users: The shared users.
            specs: Of the adapters, which act in this order.
            recipe: How they are trained.
            starts: Where each begins.
            given: What adapters are told about each query, by its number among those of all users in turn.

        Raises:
            InputError: The protocol has no shared users.
        """
        pairs = [self._shared_example(user, i) for user in users for i in range(len(user.queries))]
        if not pairs:
            raise InputError("this method has a shared stage, but the data has no shared users (no train split)")
        return self.train_pooled(pairs, specs, recipe, starts, given)

    def train_pooled(
        self,
        pairs: Sequence[Pair],
        specs: Sequence[AdapterSpec],
        recipe: Recipe,
        starts: Sequence[State],
        given: Callable[[int], Tensor] | None = None,
    ) -> list[State]:
        """Train adapters together on any examples; otherwise as ``train_shared``."""
        job = TrainingJob("shared", derive_seed(self.seed, "shared"), pairs, starts, given)
        if self.engine == "solo":
            return train_alone(self.backbone, job, specs, recipe, progress=self.progress)
        from lampbench.adapters import Snapshots, train_together

        about = digest([repr(specs), repr(recipe), job.seed, [[pair.prompt.text, pair.target] for pair in pairs]])
        ((_, states),) = train_together(
            self.backbone, [job], specs, recipe,
            options=self.options,
            snapshots=Snapshots(self.kept, self.keep, about),
            progress=self.progress,
            say=self.say,
        )  # fmt: skip
        return states

    def train_each(
        self,
        jobs: Sequence[TrainingJob],
        spec: AdapterSpec,
        recipe: Recipe,
        beneath: Sequence[Adapter | PerUser] = (),
    ) -> Iterator[tuple[str, State]]:
        """Train an adapter for each job on that job's examples alone; each comes out as soon as it is done.

        Args:
            jobs: Users by their ids.
            spec: Of every adapter.
            recipe: How they are trained.
            beneath: Frozen adapters that act before them.
        """
        if self.engine == "solo":
            for done, job in enumerate(jobs, start=1):
                (state,) = train_alone(self.backbone, job, [spec], recipe, beneath=beneath)
                yield job.name, state
                self.progress(done, len(jobs))
            return
        from lampbench.adapters import train_together

        trained = train_together(
            self.backbone, jobs, [spec], recipe,
            beneath=beneath, options=self.options, progress=self.progress, say=self.say,
        )  # fmt: skip
        for job, (state,) in trained:
            yield job.name, state

    def _asked_together(self, queries: Sequence[Query]) -> list[list[Query]]:
        if self.engine == "stacked":
            return [list(queries)] if queries else []
        by_user: dict[str, list[Query]] = {}
        for query in queries:
            by_user.setdefault(query.user_id, []).append(query)
        return list(by_user.values())

    def _answers(
        self, queries: Sequence[Query], adapters: Sequence[Adapter | PerUser], contrast: Contrast | None = None
    ) -> dict[str, str]:
        prompts = []
        # With a contrast, each prompt is also read by the unadapted model, which is nobody's.
        rows = [*(query.user_id for query in queries), *[None] * (0 if contrast is None else len(queries))]
        for query in queries:
            user = self._users.get(query.user_id)
            prompt = self.task.prompt(query.text, query.id)
            prompts.append(prompt if user is None else prompt.with_context(self.context(user, query)))
        written = self.backbone.answer(self.task, prompts, acting(adapters, rows), contrast)
        return dict(zip([query.id for query in queries], written, strict=True))

    def _example(self, user: User, number: int) -> Pair:
        item = user.history[number]
        pair = self.task.pair(item)
        if self.task.item_source is None:
            return pair
        earlier = User(user.id, user.history[:number])
        return _after(pair, self.context(earlier, Query(item.id, user.id, item.source)))

    def _shared_example(self, shared: LabelledUser, number: int) -> Pair:
        query, target = shared.queries[number].query, shared.queries[number].target
        return _after(self.task.example(query.text, target, query.id), self.context(shared.user, query))


def _after(pair: Pair, context: str | Sequence[str] | Context) -> Pair:
    """The training example with ``context`` before it."""
    return replace(pair, prompt=pair.prompt.with_context(context))
