"""PerFit: low-rank interventions on hidden states, in two stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lampbench import AdapterMethod, InputError, Parameters, SharedUser, Task, setting
from lampbench.adapters import Edits, InterventionSet, Positions, Recipe, intervention_parameters
from lampbench.core import RunContext, derive_seed

# The depth of the model that PerFit's layers were chosen on (Llama-2-7B).
_PUBLISHED_DEPTH = 32


@dataclass(frozen=True)
class Preset:
    """Layers (of 32), ranks and training of one task.

    The number of layers and both ranks reproduce the published parameter reductions; which layers
    is not published beyond "around 14-16".
    """

    layers: tuple[int, ...]
    shared_rank: int
    user_rank: int
    training: Mapping[str, Any] = field(default_factory=lambda: _PUBLISHED)


# Published, but for warm-up and batch size, which are OPPU's.
_PUBLISHED: Mapping[str, Any] = {
    "shared_start": "random",
    "user_start": "copy",
    "shared_epochs": 3,
    "user_epochs": 2,
    "learning_rate": 1e-4,
    "batch_size": 16,
    "clip": 0.3,
}

PRESETS = {
    "lamp2n": Preset((14, 15, 16), 16, 32),
    "lamp2m": Preset((15, 16), 32, 4),
    "lamp3": Preset((14, 15, 16), 32, 4),
    "lamp4": Preset((14, 15, 16), 32, 4),
    "lamp5": Preset((15,), 32, 8),
    "lamp7": Preset((15, 16), 32, 16),
}
_ANY_TASK = Preset((15,), 32, 8)

# On a model of three million parameters the published rate moves nothing in two epochs.
_MINI = Preset(
    (10, 16, 21),
    8,
    8,
    {
        "shared_start": "identity",
        "user_start": "copy",
        "shared_epochs": 2,
        "user_epochs": 4,
        "learning_rate": 8e-3,
        "batch_size": 8,
        "clip": 1.0,
    },
)


def _by_preset(name: str) -> str:
    """What both presets say, for the help of a setting."""
    return f"(lamp {_PUBLISHED[name]}, mini {_MINI.training[name]})"


@dataclass(frozen=True)
class PerFitConfig:
    """Settings of ``perfit``."""

    preset: Literal["auto", "lamp", "mini"] = setting("auto", "fills what is not set: lamp (published) or mini")
    layers: tuple[int, ...] | None = setting(None, "decoder layers to edit after, 0-based (default: the task's preset)")
    shared_rank: int | None = setting(None, "rank of the collective shift (default: the task's preset)")
    user_rank: int | None = setting(None, "rank of the personalized shift (default: the task's preset)")
    positions: str = setting("all", "tokens to edit: all, l<n>, f<n>, f<n>+l<m> (first and last of the prompt)")
    shared_start: Literal["random", "identity"] | None = setting(
        None, f"how stage 1 starts: as pyreft does, or unchanged {_by_preset('shared_start')}"
    )
    user_start: Literal["copy", "identity"] | None = setting(
        None, f"how stage 2 starts: from stage 1's user part, or unchanged {_by_preset('user_start')}"
    )
    shared_epochs: int | None = setting(None, f"epochs of stage 1 {_by_preset('shared_epochs')}")
    user_epochs: int | None = setting(None, f"epochs of stage 2 {_by_preset('user_epochs')}")
    learning_rate: float | None = setting(None, f"AdamW learning rate, both stages {_by_preset('learning_rate')}")
    weight_decay: float = setting(1e-2, "AdamW weight decay, both stages")
    warmup_ratio: float = setting(0.1, "part of the steps in which the learning rate rises")
    clip: float | None = setting(None, f"largest gradient norm {_by_preset('clip')}")
    batch_size: int | None = setting(None, f"training examples a step {_by_preset('batch_size')}")

    def __post_init__(self) -> None:
        Positions.parse(self.positions)
        for name in ("shared_rank", "user_rank", "shared_epochs", "user_epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        if self.layers is not None and (not self.layers or len(set(self.layers)) < len(self.layers)):
            raise ValueError(f"layers must name at least one layer, each once, found {list(self.layers)}")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, found {value}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be at least 0, found {self.weight_decay}")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio must be from 0 to 1, found {self.warmup_ratio}")


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
        self._collective: Edits | None = None
        self._user_start: Edits | None = None

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill what is open from the preset, layers scaled to the backbone's depth."""
        shape = context.shape
        if shape is None:
            return config
        name = ("mini" if context.protocol == "mini" else "lamp") if config.preset == "auto" else config.preset
        preset = _MINI if name == "mini" else PRESETS.get(task.name, _ANY_TASK)
        config = _filled(replace(config, preset=name), preset.training)
        layers = _scaled(preset.layers, shape.layers) if config.layers is None else config.layers
        wrong = [layer for layer in layers if not 0 <= layer < shape.layers]
        if wrong:
            raise InputError(f"perfit: no layer {wrong[0]}; the backbone has layers 0 to {shape.layers - 1}")
        ranks = (config.shared_rank or preset.shared_rank, config.user_rank or preset.user_rank)
        if max(ranks) >= shape.width:
            raise InputError(f"perfit: rank {max(ranks)} must be below the backbone's width, {shape.width}")
        return replace(config, layers=layers, shared_rank=ranks[0], user_rank=ranks[1])

    def fit_shared(self, users: Sequence[SharedUser]) -> None:
        """Stage 1, the collective shift."""
        collective = self._fresh(self.config.shared_rank, self.config.shared_start == "identity", "shared part")
        recipe = self._recipe(self.config.shared_epochs)
        if self.config.user_start == "identity":
            self._collective = self.train_shared(recipe, users, [collective])[0]
            return
        personal = self._fresh(self.config.user_rank, self.config.shared_start == "identity", "user part")
        self._collective, self._user_start = self.train_shared(recipe, users, [collective, personal])

    def new_adapter(self, seed: int) -> InterventionSet:
        """A copy of stage 1's user part, or the identity."""
        if self._user_start is not None:
            return InterventionSet(self._user_start.layers, self.positions())
        return self._fresh(self.config.user_rank, True, f"user {seed}")

    def recipe(self) -> Recipe:
        """Stage 2's optimizer settings."""
        return self._recipe(self.config.user_epochs)

    def positions(self) -> Positions:
        """Where the shifts act."""
        return Positions.parse(self.config.positions)

    def beneath(self) -> Sequence[Edits]:
        """The collective shift."""
        return [self._collective] if self._collective is not None else []

    def unadapted(self) -> Sequence[Edits]:
        """All that stage 1 trained."""
        return [*self.beneath(), *([self._user_start] if self._user_start is not None else [])]

    def save_shared(self, folder: Path) -> None:
        """Write the collective shift and, where users start from one, the user part of stage 1."""
        for name, edits in (("collective", self._collective), ("user_start", self._user_start)):
            if edits is not None:
                edits.save(folder / f"{name}.safetensors")

    def load_shared(self, folder: Path, users: Sequence[SharedUser]) -> None:
        """Read what ``save_shared`` wrote."""
        self._collective = self.load_edits(folder / "collective.safetensors")
        if self.config.user_start == "copy":
            self._user_start = self.load_edits(folder / "user_start.safetensors")

    def parameters(self) -> Parameters:
        """What each stage trains."""
        width, layers = self.backbone.shape.width, len(self.config.layers)
        collective = intervention_parameters(width, self.config.shared_rank, layers)
        personal = intervention_parameters(width, self.config.user_rank, layers)
        return Parameters(collective + (personal if self.config.user_start == "copy" else 0), personal)

    def _fresh(self, rank: int, identity: bool, name: str) -> InterventionSet:
        return InterventionSet.fresh(
            self.config.layers,
            self.backbone.shape.width,
            rank,
            self.positions(),
            identity=identity,
            seed=derive_seed(self.seed, "perfit", name),
            device=self.backbone.info.device,
        )

    def _recipe(self, epochs: int) -> Recipe:
        config = self.config
        return Recipe(
            epochs, config.learning_rate, config.weight_decay, config.warmup_ratio, config.clip, config.batch_size
        )


def _filled(config: Any, defaults: Mapping[str, Any]) -> Any:
    """The config with its open fields taken from ``defaults``."""
    return replace(config, **{name: value for name, value in defaults.items() if getattr(config, name) is None})


def _scaled(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Layers of a 32-layer model at the same relative depth of another, each once."""
    return tuple(sorted({min(depth - 1, round(layer * depth / _PUBLISHED_DEPTH)) for layer in layers}))
