"""One LoRA for the task, merged into weights that are not quantized, and what goes before its prompts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lampbench_methods.pag import (
    NO_PROFILE,
    PROFILE_ITEMS,
    PROFILE_TOKENS,
    ProfileWriter,
    read_profile,
    write_profile,
)

from lampbench import AdapterMethod, InputError, LabelledUser, Parameters, Query, Task, User, setting
from lampbench.adapters import AdapterSpec, LoraSpec, Recipe, State, family_targets
from lampbench.bases import TrainingConfig
from lampbench.core import Context, RunContext, SharedIdentity, derive_seed
from lampbench.retrieval import ASKED_FOR_HELP, AskedFor, Retriever, RetrieverFactory, RetrieverName

if TYPE_CHECKING:
    from lampbench.backbone import Adapter

# OPPU's released settings.
PUBLISHED: dict[str, Any] = {"learning_rate": 1e-4, "batch_size": 16, "clip": 0.3, "rank": 8}
TASK_EPOCHS = 3
RANKS_TO_TRY = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class LoraTrainingConfig(TrainingConfig):
    """Settings of every LoRA."""

    rank: int | None = setting(None, "rank of each LoRA")
    alpha: float = setting(8.0, "scale of each LoRA, divided by its rank")
    dropout: float = setting(0.05, "probability that an input of a LoRA is dropped in training")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, found {self.dropout}")
        for name in (name for name in vars(self) if name.endswith("targets")):
            if getattr(self, name) == ():
                raise ValueError(f"{name} must name at least one module")

    def on(self, context: RunContext) -> Any:
        """The config with the targets of the run's backbone; raises InputError if they cannot have a LoRA.

        Targets that are the default are those maps of queries, keys and values that the backbone's family has.
        """
        if context.shape is None:
            return self
        shape, own = context.shape, [field for field in fields(self) if field.name.endswith("targets")]
        found: dict[str, Any] = {
            field.name: family_targets(getattr(self, field.name), cast("tuple[str, ...]", field.default), shape)
            for field in own
        }
        return replace(self, **found)

    def spec(self, targets: tuple[str, ...]) -> LoraSpec:
        """A LoRA on the modules called ``targets``; raises ValueError if the rank is still None."""
        if self.rank is None:
            raise ValueError("the rank is None; let AdapterMethod.resolve fill it")
        return LoraSpec(self.rank, self.alpha, self.dropout, targets)


@dataclass(frozen=True)
class TaskLoraConfig(LoraTrainingConfig):
    """Settings of every task LoRA: training, and what goes before each prompt."""

    retriever: Literal["bm25", "recency", "random"] | None = setting(
        None, "puts history items before every prompt, in training only earlier ones"
    )
    k: int = setting(1, "how many history items, with a retriever")
    query: AskedFor = setting("template", ASKED_FOR_HELP)
    profile: bool = setting(False, "puts a profile that the raw backbone wrote before every prompt")
    profile_items: int | None = setting(
        None, "history items a profile is written from (default: 10, or what the protocol recommends)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "k", "profile_items")

    def stage(self, version: int, targets: tuple[str, ...], epochs: int | None) -> SharedIdentity:
        """What a task LoRA depends on: the same for every method that trains one."""
        read = {field.name for field in fields(TaskLoraConfig)} - {"preset"}
        if self.retriever is None:
            read -= {"k", "query"}
        if not self.profile:
            read -= {"profile_items"}
        own = {name: getattr(self, name) for name in sorted(read)}
        return SharedIdentity("task LoRA", version, {**own, "targets": targets, "epochs": epochs})


@dataclass(frozen=True)
class LoraConfig(TaskLoraConfig):
    """Settings of ``lora``."""

    published = PUBLISHED | {"epochs": TASK_EPOCHS}
    targets: tuple[str, ...] = setting(
        ("q_proj", "k_proj", "v_proj"), "modules that get a LoRA, or what the model has in their place"
    )
    epochs: int | None = setting(None, "epochs over the shared users' queries")


class TaskLora(AdapterMethod):
    """A method whose shared stage is a LoRA, merged into the backbone's weights.

    Quantized weights cannot be changed, so there the LoRA acts beneath the users' adapters.

    With a retriever or a profile every prompt carries the user's context, in all stages and at test.
    While training on a history item only strictly earlier items can be retrieved; the profile is
    written once from the whole history, as OPPU does.
    """

    config: Any

    def setup(self) -> None:
        """Start with the plain backbone."""
        super().setup()
        self._task_state: State | None = None
        self._beneath: tuple[Adapter, ...] = ()
        name: RetrieverName = self.config.retriever or "bm25"
        self._make = RetrieverFactory(name, self.task, self.seed, query=self.config.query)
        self._retrievers: dict[str, Retriever] = {}
        self._profiles: dict[str, str] = {}
        # Profiles are the raw backbone's: it stays at hand when the task LoRA is merged.
        self._raw = self.backbone

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None (of the profile from the protocol or as published), and name the modules."""
        if config.profile and not task.wording.profile:
            raise InputError(f"{context.method}: profile: {NO_PROFILE.format(task.wording.name)}")
        if config.profile_items is None:
            config = replace(config, profile_items=context.recommended.get("profile_items", PROFILE_ITEMS))
        return super().resolve(config, task, context).on(context)

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """The rank."""
        return {"rank": RANKS_TO_TRY}

    @classmethod
    @abstractmethod
    def shared_identity(cls, config: Any) -> SharedIdentity:
        """What the task LoRA depends on."""

    @abstractmethod
    def task_adapter(self) -> LoraSpec:
        """The LoRA that all users share."""

    @abstractmethod
    def task_recipe(self) -> Recipe:
        """How it is trained."""

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Train the task LoRA, on prompts with the shared users' contexts, and let it act."""
        people = [shared.user for shared in users]
        self.prepare(people)
        spec = self.task_adapter()
        start = spec.fresh(self.backbone, derive_seed(self.seed, "task LoRA"))
        (state,) = self.train_shared(users, [spec], self.task_recipe(), [start])
        for user in people:
            self.forget(user.id)
        self._act(state)

    def context(self, user: User, query: Query) -> Context:
        """The profile, then the best items."""
        retriever = self._retrievers.get(user.id)
        # While training, the history given here is the part before the query's own item.
        items = retriever.rank(query, self.config.k, before=len(user.history)) if retriever else []
        return self.task.context(items, self._profiles.get(user.id, ""))

    def forget(self, user_id: str) -> None:
        """Drop what was trained for the user, the history and the profile."""
        super().forget(user_id)
        self._profiles.pop(user_id, None)
        self._retrievers.pop(user_id, None)

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write the user's profile, if one was written."""
        if user_id in self._profiles:
            write_profile(self._profiles[user_id], folder)

    def load_user(self, user: User, folder: Path) -> None:
        """Read the profile, and index the history again."""
        self._index([user])
        self._users[user.id] = user
        if self.config.profile and user.history:
            self._profiles[user.id] = read_profile(folder)

    def save_shared(self, folder: Path) -> None:
        """Write the task LoRA as a PEFT folder."""
        if self._task_state is not None:
            self.task_adapter().save(self._task_state, folder, self.backbone)

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Read the task LoRA and let it act."""
        self._act(self.task_adapter().load(folder, self.backbone))

    def prepare(self, users: Sequence[User]) -> None:
        """Index histories and write profiles, as far as prompts carry them and there is a history."""
        users = [user for user in users if user.history]
        self._index(users)
        if self.config.profile:
            writer = ProfileWriter(self.task, self._raw, self.seed, self.config.profile_items, PROFILE_TOKENS)
            self._profiles.update(zip([user.id for user in users], writer.write(users), strict=True))

    def _index(self, users: Sequence[User]) -> None:
        if self.config.retriever is not None:
            self._retrievers.update({user.id: self._make(user) for user in users if user.history})

    def beneath(self) -> Sequence[Adapter]:
        """The task LoRA, if it could not be merged."""
        return self._beneath

    def acting_for(self, user_id: str) -> Sequence[tuple[AdapterSpec, State]]:
        """The task LoRA, and the user's adapter if there is one."""
        own = [(self.adapter(), self._states[user_id])] if user_id in self._states else []
        shared = [] if self._task_state is None else [(self.task_adapter(), self._task_state)]
        return [*shared, *own]

    def _act(self, state: State) -> None:
        spec = self.task_adapter()
        self._task_state = state
        if spec.mergeable(self.backbone):
            self.backbone = self.backbone.with_weights(spec.changes(self.backbone, state))
        else:
            self._beneath = (spec.frozen(self.backbone, [state]),)


class Lora(TaskLora):
    """Task LoRA ("LoRA-C"): the first stage of OPPU alone, the same for every user.

    Trained on the shared users' queries and merged into the backbone's weights. The baselines of OPPU's and PerFit's
    tables use it: alone it is the non-personalized one, with ``retriever=bm25`` RAG, with ``profile=yes`` PAG.
    """

    Config = LoraConfig
    config: LoraConfig
    paper = "Tan et al., OPPU, EMNLP 2024, stage 1"

    @classmethod
    def shared_identity(cls, config: Any) -> SharedIdentity:
        """What the task LoRA depends on: all settings but the preset's name."""
        identity: SharedIdentity = config.stage(cls.version, config.targets, config.epochs)
        return identity

    def adapt(self, users: Sequence[User]) -> None:
        """Prepare what goes before the users' prompts; nothing is trained."""
        self.prepare(users)
        self._users.update({user.id: user for user in users})

    def moved(self, user_id: str) -> bool | None:
        """None: no parameter is a user's own."""
        return None

    def adapter(self) -> LoraSpec:
        """The only LoRA that there is."""
        return self.config.spec(self.config.targets)

    def recipe(self) -> Recipe:
        """How it is trained."""
        recipe: Recipe = self.config.recipe(self.config.epochs)
        return recipe

    task_adapter = adapter
    task_recipe = recipe

    def parameters(self) -> Parameters:
        """The task LoRA's."""
        return Parameters(shared=self.adapter().parameter_count(self.backbone))
