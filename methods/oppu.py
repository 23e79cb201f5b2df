"""OPPU: one LoRA per user on a task-adapted backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lampbench_methods.lora import PUBLISHED, TASK_EPOCHS, LoraTrainingConfig, TaskLora
from lampbench_methods.pag import PROFILE_ITEMS, PROFILE_TOKENS, ProfileWriter, read_profile, write_profile
from lampbench_methods.user_lora import USER_EPOCHS

from lampbench import LabelledUser, Parameters, Query, Task, User, setting
from lampbench.adapters import LoraSpec, Recipe
from lampbench.core import RunContext
from lampbench.retrieval import Retriever, RetrieverFactory


@dataclass(frozen=True)
class OppuConfig(LoraTrainingConfig):
    """Settings of ``oppu``."""

    published = PUBLISHED | {"task_epochs": TASK_EPOCHS, "user_epochs": USER_EPOCHS}
    task_targets: tuple[str, ...] = setting(("q_proj", "k_proj", "v_proj"), "modules with a task LoRA")
    user_targets: tuple[str, ...] = setting(("q_proj", "v_proj"), "modules with a user's LoRA")
    task_epochs: int | None = setting(None, "epochs over the shared users' queries")
    user_epochs: int | None = setting(None, "epochs over the user's history")
    retriever: Literal["bm25", "recency", "random"] | None = setting(
        None, "puts history items before every prompt, in training only earlier ones (OPPU+RAG)"
    )
    k: int = setting(1, "how many history items, with a retriever")
    profile: bool = setting(False, "puts a profile that the raw backbone wrote before every prompt (OPPU+PAG)")
    profile_items: int | None = setting(
        None, "history items a profile is written from (default: 10, or what the protocol recommends)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("k", "profile_items"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")


class Oppu(TaskLora):
    """One PEFT per user: a task LoRA merged into the backbone, then one LoRA per user on top.

    With a retriever or a profile every prompt carries the user's context, in both stages and at test.
    While training on a history item only strictly earlier items can be retrieved; the profile is
    written once from the whole history, as OPPU does.
    """

    Config = OppuConfig
    config: OppuConfig
    paper = "Tan et al., OPPU, EMNLP 2024"

    def setup(self) -> None:
        """Start with neither stage trained."""
        super().setup()
        self._make = RetrieverFactory(self.config.retriever or "bm25", self.task, self.seed)
        self._retrievers: dict[str, Retriever] = {}
        self._profiles: dict[str, str] = {}
        # Profiles are the raw backbone's: it stays at hand when the task LoRA is merged.
        self._raw = self.backbone

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None: of the profile from the protocol or as published, others from the preset."""
        if config.profile_items is None:
            config = replace(config, profile_items=context.recommended.get("profile_items", PROFILE_ITEMS))
        return super().resolve(config, task, context)

    def task_adapter(self) -> LoraSpec:
        """The LoRA that all users share."""
        return self.config.spec(self.config.task_targets)

    def task_recipe(self) -> Recipe:
        """How it is trained."""
        return self.config.recipe(self.config.task_epochs)

    def adapter(self) -> LoraSpec:
        """The user's LoRA."""
        return self.config.spec(self.config.user_targets)

    def recipe(self) -> Recipe:
        """How it is trained."""
        return self.config.recipe(self.config.user_epochs)

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Train the task LoRA on prompts with the shared users' contexts."""
        people = [shared.user for shared in users]
        self._prepare(people)
        super().fit_shared(users)
        for user in people:
            self.forget(user.id)

    def adapt(self, users: Sequence[User]) -> None:
        """Train each user's LoRA."""
        self._prepare(users)
        super().adapt(users)

    def context(self, user: User, query: Query) -> list[str]:
        """The profile, then the best items."""
        profile = self._profiles.get(user.id)
        pieces = [f"{profile}\n"] if profile else []
        retriever = self._retrievers.get(user.id)
        if retriever is None:
            return pieces
        # While training, the history given here is the part before the query's own item.
        items = retriever.rank(query, self.config.k, before=len(user.history))
        return [*pieces, *(self.task.render(item) for item in items)]

    def forget(self, user_id: str) -> None:
        """Drop the user's LoRA, history and profile."""
        super().forget(user_id)
        self._profiles.pop(user_id, None)
        self._retrievers.pop(user_id, None)

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write the user's LoRA as a PEFT folder, and the profile, if one was written."""
        super().save_user(user_id, folder)
        if user_id in self._profiles:
            write_profile(self._profiles[user_id], folder)

    def load_user(self, user: User, folder: Path) -> None:
        """Read them."""
        super().load_user(user, folder)
        self._index([user])
        if self.config.profile:
            self._profiles[user.id] = read_profile(folder)

    def parameters(self) -> Parameters:
        """The task LoRA's, and one user's."""
        shared, own = (spec.parameter_count(self.backbone) for spec in (self.task_adapter(), self.adapter()))
        return Parameters(shared, own)

    def _prepare(self, users: Sequence[User]) -> None:
        """Index histories and write profiles, as far as prompts carry them and there is a history."""
        users = [user for user in users if user.history]
        self._index(users)
        if self.config.profile and self.config.profile_items is not None:
            writer = ProfileWriter(self.task, self._raw, self.seed, self.config.profile_items, PROFILE_TOKENS)
            self._profiles.update(zip([user.id for user in users], writer.write(users), strict=True))

    def _index(self, users: Sequence[User]) -> None:
        if self.config.retriever is not None:
            self._retrievers.update({user.id: self._make(user) for user in users if user.history})
