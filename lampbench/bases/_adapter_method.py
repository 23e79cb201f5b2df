"""Base of methods that train an adapter a user."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from lampbench.adapters import Edits, InterventionSet, Positions, Recipe, train
from lampbench.backbone import TransformersBackbone
from lampbench.core import InputError, Method, Pair, Parameters, Query, SharedUser, User, derive_seed

_FILE = "interventions.safetensors"


class AdapterMethod(Method):
    """Train an adapter on each user's history; override ``recipe`` and ``new_adapter``.

    The base trains, predicts, saves, loads, forgets and counts. A method with a shared stage also
    overrides ``fit_shared`` (calling ``train_shared``), ``beneath``, ``save_shared`` and
    ``load_shared``.

    Users are trained one after another here; each one's result depends on nothing but the shared
    state, the user's history and a seed derived from the user's id.
    """

    users_at_once = 1
    backbone: TransformersBackbone

    def setup(self) -> None:
        """Start with nobody adapted."""
        self._users: dict[str, Edits] = {}

    @abstractmethod
    def recipe(self) -> Recipe:
        """How a user's adapter is trained."""

    @abstractmethod
    def new_adapter(self, seed: int) -> InterventionSet:
        """The trainable adapter that a user starts from."""

    def beneath(self) -> Sequence[Edits]:
        """Frozen edits of the shared stage that act before the user's own."""
        return ()

    def unadapted(self) -> Sequence[Edits]:
        """The edits for a user who was never adapted, or was forgotten."""
        return self.beneath()

    def examples(self, user: User) -> Sequence[Pair]:
        """A user's training examples: each history item, by the task's template."""
        return [self.task.pair(item) for item in user.history]

    def adapt(self, users: Sequence[User]) -> None:
        """Train each user's adapter on that user's examples alone."""
        for user in users:
            seed = derive_seed(self.seed, "user", user.id)
            adapter = self.new_adapter(seed)
            train(self.backbone, self.examples(user), [adapter], self.recipe(), seed=seed, beneath=self.beneath())
            self._users[user.id] = adapter.frozen()

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        """Answer each user's queries with that user's adapter, users without one together."""
        answers: dict[str, str] = {}
        by_user: dict[str | None, list[Query]] = {}
        for query in queries:
            by_user.setdefault(query.user_id if query.user_id in self._users else None, []).append(query)
        for user_id, own in by_user.items():
            adapters = self.unadapted() if user_id is None else [*self.beneath(), self._users[user_id]]
            prompts = [self.task.prompt(query.text, query.id) for query in own]
            written = self.backbone.answer(self.task, prompts, adapters)
            answers.update(zip([query.id for query in own], written, strict=True))
        return [answers[query.id] for query in queries]

    def forget(self, user_id: str) -> None:
        """Drop the user's adapter."""
        self._users.pop(user_id, None)

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write the user's adapter, one safetensors file."""
        self._users[user_id].save(folder / _FILE)

    def load_user(self, user: User, folder: Path) -> None:
        """Read the user's adapter."""
        self._users[user.id] = self.load_edits(folder / _FILE)

    def parameters(self) -> Parameters:
        """Parameters of one user's adapter."""
        return Parameters(per_user=self.new_adapter(0).parameter_count)

    def positions(self) -> Positions:
        """Where the edits act; by default at every token."""
        return Positions(everything=True)

    def load_edits(self, path: Path) -> Edits:
        """Read saved edits onto the backbone's device."""
        return Edits.load(path, self.positions(), self.backbone.info.device)

    def train_shared(
        self, recipe: Recipe, users: Sequence[SharedUser], adapters: Sequence[InterventionSet]
    ) -> list[Edits]:
        """Train ``adapters`` together on the shared users' labelled queries; return them frozen.

        Raises:
            InputError: The protocol has no shared users.
        """
        pairs = [
            self.task.example(labelled.query.text, labelled.target, labelled.query.id)
            for user in users
            for labelled in user.queries
        ]
        if not pairs:
            raise InputError("this method has a shared stage, but the data has no shared users (no train split)")
        train(self.backbone, pairs, adapters, recipe, seed=derive_seed(self.seed, "shared"), progress=self.progress)
        return [adapter.frozen() for adapter in adapters]
