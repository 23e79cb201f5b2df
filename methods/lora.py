"""One LoRA for the task, merged into the backbone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lampbench import AdapterMethod, LabelledUser, Method, Parameters, Task, setting
from lampbench.adapters import LoraSpec, Recipe, State, family_targets
from lampbench.bases import TrainingConfig
from lampbench.core import RunContext, derive_seed

# OPPU's released settings.
PUBLISHED: dict[str, Any] = {"learning_rate": 1e-4, "batch_size": 16, "clip": 0.3}
TASK_EPOCHS = 3
RANKS_TO_TRY = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class LoraTrainingConfig(TrainingConfig):
    """What every LoRA here has."""

    rank: int = setting(8, "rank of each LoRA")
    alpha: float = setting(8.0, "scale of each LoRA, divided by its rank")
    dropout: float = setting(0.05, "probability that an input of a LoRA is dropped in training")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, found {self.dropout}")
        for name in (name for name in vars(self) if name.endswith("targets")):
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one module")

    def on(self, context: RunContext) -> Any:
        """The config with the targets of the run's backbone; raises InputError if they cannot have a LoRA.

        Targets that are the default are those maps of queries, keys and values that the backbone's family has.
        """
        if context.shape is None:
            return self
        shape, own = context.shape, [field for field in fields(self) if field.name.endswith("targets")]
        found = {field.name: family_targets(getattr(self, field.name), field.default, shape) for field in own}
        return replace(self, **found)

    def spec(self, targets: tuple[str, ...]) -> LoraSpec:
        """A LoRA on the modules called ``targets``."""
        return LoraSpec(self.rank, self.alpha, self.dropout, targets)


@dataclass(frozen=True)
class LoraConfig(LoraTrainingConfig):
    """Settings of ``lora``."""

    published = PUBLISHED | {"epochs": TASK_EPOCHS}
    targets: tuple[str, ...] = setting(
        ("q_proj", "k_proj", "v_proj"), "modules that get a LoRA, or what the model has in their place"
    )
    epochs: int | None = setting(None, "epochs over the shared users' queries")


class TaskLora(AdapterMethod):
    """A method whose shared stage is a LoRA, merged into the backbone's weights."""

    def setup(self) -> None:
        """Start with the plain backbone."""
        super().setup()
        self._task_state: State | None = None

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None from the preset, and name the backbone's own modules."""
        return super().resolve(config, task, context).on(context)

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """The rank."""
        return {"rank": RANKS_TO_TRY}

    @abstractmethod
    def task_adapter(self) -> LoraSpec:
        """The LoRA that all users share."""

    @abstractmethod
    def task_recipe(self) -> Recipe:
        """How it is trained."""

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Train the task LoRA and merge it."""
        spec = self.task_adapter()
        start = spec.fresh(self.backbone, derive_seed(self.seed, "task LoRA"))
        (state,) = self.train_shared(users, [spec], self.task_recipe(), [start])
        self._merge(state)

    def save_shared(self, folder: Path) -> None:
        """Write the task LoRA as a PEFT folder."""
        if self._task_state is not None:
            self.task_adapter().save(self._task_state, folder, self.backbone)

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Read and merge the task LoRA."""
        self._merge(self.task_adapter().load(folder, self.backbone))

    def _merge(self, state: State) -> None:
        self._task_state = state
        self.backbone = self.backbone.with_weights(self.task_adapter().changes(self.backbone, state))


class Lora(TaskLora):
    """Task LoRA ("LoRA-C"): the first stage of OPPU alone, the same for every user.

    Trained on the shared users' queries and merged into the backbone's weights.
    """

    Config = LoraConfig
    config: LoraConfig
    paper = "Tan et al., OPPU, EMNLP 2024, stage 1"
    # Nobody is adapted: what a user wrote is not used.
    adapt = Method.adapt
    save_user = Method.save_user
    load_user = Method.load_user

    def adapter(self) -> LoraSpec:
        """The only LoRA that there is."""
        return self.config.spec(self.config.targets)

    def recipe(self) -> Recipe:
        """How it is trained."""
        return self.config.recipe(self.config.epochs)

    task_adapter = adapter
    task_recipe = recipe

    def parameters(self) -> Parameters:
        """The task LoRA's."""
        return Parameters(shared=self.adapter().parameter_count(self.backbone))
