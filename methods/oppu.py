"""OPPU: one LoRA per user on a task-adapted backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampbench_methods.lora import PUBLISHED, TASK_EPOCHS, TaskLora, TaskLoraConfig
from lampbench_methods.user_lora import USER_EPOCHS

from lampbench import AdapterMethod, Parameters, User, setting
from lampbench.adapters import LoraSpec, Recipe
from lampbench.core import SharedIdentity


@dataclass(frozen=True)
class OppuConfig(TaskLoraConfig):
    """Settings of ``oppu``; with a retriever OPPU+RAG, with a profile OPPU+PAG."""

    published = PUBLISHED | {"task_epochs": TASK_EPOCHS, "user_epochs": USER_EPOCHS}
    user_epochs_in = "user_epochs"
    task_targets: tuple[str, ...] = setting(
        ("q_proj", "k_proj", "v_proj"), "modules with a task LoRA, or what the model has in their place"
    )
    user_targets: tuple[str, ...] = setting(
        ("q_proj", "v_proj"), "modules with a user's LoRA, or what the model has in their place"
    )
    task_epochs: int | None = setting(None, "epochs over the shared users' queries")
    user_epochs: int | None = setting(None, "epochs over the user's history")


class Oppu(TaskLora):
    """One PEFT per user: a task LoRA merged into the backbone, then one LoRA per user on top.

    The task LoRA is that of ``lora`` with the same settings.
    """

    Config = OppuConfig
    config: OppuConfig
    paper = "Tan et al., OPPU, EMNLP 2024"

    @classmethod
    def shared_identity(cls, config: Any) -> SharedIdentity:
        """What the task LoRA depends on: all settings but the users' own."""
        identity: SharedIdentity = config.stage(cls.version, config.task_targets, config.task_epochs)
        return identity

    def task_adapter(self) -> LoraSpec:
        """The LoRA that all users share."""
        return self.config.spec(self.config.task_targets)

    def task_recipe(self) -> Recipe:
        """How it is trained."""
        recipe: Recipe = self.config.recipe(self.config.task_epochs)
        return recipe

    def adapter(self) -> LoraSpec:
        """The user's LoRA."""
        return self.config.spec(self.config.user_targets)

    def recipe(self) -> Recipe:
        """How it is trained."""
        recipe: Recipe = self.config.recipe(self.config.user_epochs)
        return recipe

    def adapt(self, users: Sequence[User]) -> None:
        """Train each user's LoRA."""
        self.prepare(users)
        super().adapt(users)

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write the user's LoRA as a PEFT folder, and the profile, if one was written."""
        AdapterMethod.save_user(self, user_id, folder)
        super().save_user(user_id, folder)

    def load_user(self, user: User, folder: Path) -> None:
        """Read them."""
        AdapterMethod.load_user(self, user, folder)
        super().load_user(user, folder)

    def parameters(self) -> Parameters:
        """The task LoRA's, and one user's."""
        shared, own = (spec.parameter_count(self.backbone) for spec in (self.task_adapter(), self.adapter()))
        return Parameters(shared, own)
