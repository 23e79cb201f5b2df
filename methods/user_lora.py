"""One LoRA per user on the raw backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lampbench_methods.lora import PUBLISHED, RANKS_TO_TRY, LoraTrainingConfig

from lampbench import AdapterMethod, Task, setting
from lampbench.adapters import LoraSpec, Recipe
from lampbench.core import RunContext

USER_EPOCHS = 2


@dataclass(frozen=True)
class UserLoraConfig(LoraTrainingConfig):
    """Settings of ``user-lora``."""

    published = PUBLISHED | {"epochs": USER_EPOCHS}
    user_epochs_in = "epochs"
    targets: tuple[str, ...] = setting(
        ("q_proj", "v_proj"), "modules that get a LoRA, or what the model has in their place"
    )
    epochs: int | None = setting(None, "epochs over the user's history")


class UserLora(AdapterMethod):
    """User LoRA ("LoRA-P"): the second stage of OPPU on the raw backbone, without the first."""

    Config = UserLoraConfig
    config: UserLoraConfig
    paper = "Tan et al., OPPU, EMNLP 2024, stage 2"

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None from the preset, and name the backbone's own modules."""
        return super().resolve(config, task, context).on(context)

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """The rank."""
        return {"rank": RANKS_TO_TRY}

    def adapter(self) -> LoraSpec:
        """The user's LoRA."""
        return self.config.spec(self.config.targets)

    def recipe(self) -> Recipe:
        """How it is trained."""
        return self.config.recipe(self.config.epochs)
