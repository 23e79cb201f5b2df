"""PerFit: low-rank interventions on hidden states, in two stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lampbench_methods.reft import check_places, places_to_try, scaled

from lampbench import AdapterMethod, LabelledUser, Parameters, Task, setting
from lampbench.adapters import Edits, InterventionSpec, Positions, Recipe, State
from lampbench.bases import TrainingConfig
from lampbench.core import Places, RunContext, SharedIdentity, config_to_json, derive_seed

# Of a task that names none.
_ANY_TASK = Places((15,), 32, 8)

# As published, but for warm-up and batch size, which are OPPU's. Layers and ranks are the task's own places: their
# number reproduces the published parameter reductions; which layers is not published beyond "around 14-16".
PUBLISHED: Mapping[str, Any] = {
    "shared_start": "random",
    "user_start": "copy",
    "shared_epochs": 3,
    "user_epochs": 2,
    "learning_rate": 1e-4,
    "batch_size": 16,
    "clip": 0.3,
}


@dataclass(frozen=True)
class PerFitConfig(TrainingConfig):
    """Settings of ``perfit``."""

    published = PUBLISHED
    user_epochs_in = "user_epochs"
    layers: tuple[int, ...] | None = setting(
        None, "decoder layers to edit after, 0-based (default: the preset's, or the task's)"
    )
    shared_rank: int | None = setting(None, "rank of the collective shift (default: the preset's, or the task's)")
    user_rank: int | None = setting(None, "rank of the personalized shift (default: the preset's, or the task's)")
    positions: str = setting("all", "tokens to edit: all, l<n>, f<n>, f<n>+l<m> (first and last of the prompt)")
    shared_start: Literal["random", "identity"] | None = setting(
        None, "how stage 1 starts: as pyreft does, or unchanged"
    )
    user_start: Literal["copy", "identity"] | None = setting(
        None, "how stage 2 starts: from stage 1's user part, or unchanged"
    )
    shared_epochs: int | None = setting(None, "epochs of stage 1")
    user_epochs: int | None = setting(None, "epochs of stage 2")

    def __post_init__(self) -> None:
        super().__post_init__()
        Positions.parse(self.positions)

    @property
    def starts_elsewhere(self) -> bool:
        """Whether stage 1 starts at random."""
        return self.shared_start == "random"


class PerFit(AdapterMethod):
    """A collective shift for all users, then a personalized shift for each.

    After each chosen layer two interventions act in turn, ``phi_user(phi_shared(h))``. Stage 1
    trains both on the shared users' queries. Stage 2 freezes ``phi_shared`` and tunes each user's
    own copy of ``phi_user`` on that user's history; with ``user_start=identity`` stage 1 trains
    ``phi_shared`` alone and users start from no shift.

    The published reductions of trainable parameters count ``phi_shared`` as stage 1; ``parameters``
    here counts everything that stage 1 trains.
    """

    Config = PerFitConfig
    paper = "Liu et al., PerFit, ICLR 2026"

    def setup(self) -> None:
        """Start with neither stage trained."""
        super().setup()
        self._collective: State | None = None
        self._user_start: State | None = None

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None from the preset and the task, layers scaled to the backbone's depth."""
        shape = context.shape
        if shape is None:
            return config
        chosen, config = config.layers, super().resolve(config, task, context)
        places = task.places or _ANY_TASK
        config = replace(
            config,
            layers=scaled(config.layers or places.layers, shape.layers) if chosen is None else chosen,
            shared_rank=config.shared_rank or places.shared_rank,
            user_rank=config.user_rank or places.user_rank,
        )
        check_places("perfit", config.layers, max(config.shared_rank, config.user_rank), shape)
        return config

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """Layers, both ranks and positions: what was searched for the paper, by 20 random trials per task."""
        return places_to_try(context, "shared_rank", "user_rank")

    @classmethod
    def shared_identity(cls, config: Any) -> SharedIdentity:
        """What stage 1 depends on; with ``user_start=identity``, not the rank of the personalized shift."""
        unread = {"preset", "user_epochs", *(["user_rank"] if config.user_start == "identity" else [])}
        read = {name: value for name, value in config_to_json(config).items() if name not in unread}
        return SharedIdentity("perfit stage 1", cls.version, read)

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Stage 1, the collective shift."""
        collective, personal = self._shared_spec(), self.adapter()
        specs = [collective] if self._starts_alone else [collective, replace(personal, start=collective.start)]
        names = ("shared part", "user part")
        starts = [
            spec.fresh(self.backbone, derive_seed(self.seed, "perfit", name))
            for spec, name in zip(specs, names, strict=False)
        ]
        self._collective, *rest = self.train_shared(users, specs, self.config.recipe(self.config.shared_epochs), starts)
        self._user_start = rest[0] if rest else None

    def adapter(self) -> InterventionSpec:
        """The personalized shift."""
        return self._spec(self.config.user_rank, "identity")

    def recipe(self) -> Recipe:
        """Stage 2's optimizer settings."""
        recipe: Recipe = self.config.recipe(self.config.user_epochs)
        return recipe

    def start(self, seed: int) -> State:
        """A copy of stage 1's user part, or the identity."""
        return super().start(seed) if self._user_start is None else self._user_start

    def beneath(self) -> list[Edits]:
        """The collective shift."""
        return [] if self._collective is None else [self._shared_spec().frozen(self.backbone, [self._collective])]

    def unadapted(self) -> list[Edits]:
        """Everything that stage 1 trained."""
        own = [] if self._user_start is None else [self.adapter().frozen(self.backbone, [self._user_start])]
        return [*self.beneath(), *own]

    def unadapted_state(self) -> State:
        """Stage 1's user part, or the identity."""
        return super().unadapted_state() if self._user_start is None else self._user_start

    def save_shared(self, folder: Path) -> None:
        """Write the collective shift and, where users start from one, the user part of stage 1."""
        for name, spec, state in self._shared_parts():
            if state is not None:
                (folder / name).mkdir()
                spec.save(state, folder / name, self.backbone)

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Read what ``save_shared`` wrote."""
        self._collective = self._shared_spec().load(folder / "collective", self.backbone)
        if not self._starts_alone:
            self._user_start = self.adapter().load(folder / "user_start", self.backbone)

    def parameters(self) -> Parameters:
        """What each stage trains."""
        collective = self._shared_spec().parameter_count(self.backbone)
        personal = self.adapter().parameter_count(self.backbone)
        return Parameters(collective + (0 if self._starts_alone else personal), personal)

    @property
    def _starts_alone(self) -> bool:
        """Whether users start from no shift and not from one that stage 1 trained."""
        return bool(self.config.user_start == "identity")

    def _shared_parts(self) -> list[tuple[str, InterventionSpec, State | None]]:
        return [
            ("collective", self._shared_spec(), self._collective),
            ("user_start", self.adapter(), self._user_start),
        ]

    def _shared_spec(self) -> InterventionSpec:
        return self._spec(self.config.shared_rank, self.config.shared_start)

    def _spec(self, rank: int, start: Literal["random", "identity"]) -> InterventionSpec:
        return InterventionSpec(self.config.layers, rank, Positions.parse(self.config.positions), start=start)
