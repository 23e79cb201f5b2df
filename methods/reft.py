"""ReFT: interventions of each user's own, without a shared stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lampbench import AdapterMethod, InputError, Task, setting
from lampbench.adapters import InterventionSpec, Kind, Positions, Recipe, check_streams
from lampbench.bases import TrainingConfig
from lampbench.core import BackboneShape, RunContext

# The depth of the model that PerFit's layers were chosen on (Llama-2-7B).
_PUBLISHED_DEPTH = 32

# Of 32, as every layer here.
_LAYERS_TO_TRY = ((5,), (8,), (10,), (15,), (8, 15), (15, 16), (14, 15, 16), (10, 16, 21))
_RANKS_TO_TRY = (4, 8, 16, 32)
_POSITIONS_TO_TRY = ("all", "l1", "f4+l4")

# PerFit's second stage, which this is without the first.
PUBLISHED: Mapping[str, Any] = {
    "layers": (14, 15, 16),
    "rank": 8,
    "start": "random",
    "epochs": 2,
    "learning_rate": 1e-4,
    "batch_size": 16,
    "clip": 0.3,
}


@dataclass(frozen=True)
class ReftConfig(TrainingConfig):
    """Settings of ``reft``."""

    published = PUBLISHED
    user_epochs_in = "epochs"
    kind: Kind = setting("loreft", "which intervention: loreft, noreft, direft, consreft, lobireft")
    layers: tuple[int, ...] | None = setting(
        None, "decoder layers to edit after, 0-based; those of a preset are of 32, and scaled"
    )
    rank: int | None = setting(None, "rank of each intervention")
    positions: str = setting("all", "tokens to edit: all, l<n>, f<n>, f<n>+l<m> (first and last of the prompt)")
    start: Literal["random", "identity"] | None = setting(None, "as pyreft starts, or unchanged")
    epochs: int | None = setting(None, "epochs over the user's history")

    def __post_init__(self) -> None:
        super().__post_init__()
        Positions.parse(self.positions)
        if self.kind == "consreft" and self.start == "identity":
            raise ValueError("consreft cannot start as the identity; set start=random")

    @property
    def starts_elsewhere(self) -> bool:
        """Whether interventions start at random."""
        return self.start == "random"


class Reft(AdapterMethod):
    """One set of interventions per user on the raw backbone (LoReFT and its relatives)."""

    Config = ReftConfig
    paper = "Wu et al., ReFT, NeurIPS 2024"

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None from the preset, layers scaled to the backbone's depth."""
        shape = context.shape
        if shape is None:
            return config
        if config.kind == "consreft":
            config = replace(config, start="random")
        chosen, config = config.layers, super().resolve(config, task, context)
        if chosen is None:
            config = replace(config, layers=scaled(config.layers, shape.layers))
        check_places("reft", config.layers, config.rank, shape)
        return config

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """Layers, rank and positions."""
        return places_to_try(context, "rank")

    def adapter(self) -> InterventionSpec:
        """The user's interventions."""
        config = self.config
        return InterventionSpec(
            config.layers, config.rank, Positions.parse(config.positions), config.kind, config.start
        )

    def recipe(self) -> Recipe:
        """How they are trained."""
        recipe: Recipe = self.config.recipe(self.config.epochs)
        return recipe


def scaled(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Layers of a 32-layer model at the same relative depth of another, each once."""
    return tuple(sorted({min(depth - 1, round(layer * depth / _PUBLISHED_DEPTH)) for layer in layers}))


def places_to_try(context: RunContext, *ranks: str) -> dict[str, Sequence[Any]]:
    """Candidates for ``layers``, ``positions`` and the settings called ``ranks``, as the backbone's shape allows.

    PerFit's findings on a 32-layer model: good layers are around 14-16, a single one best at about 5-10, the last
    ones break the output format; ranks are from 4 to 32.
    """
    if context.shape is None:
        return {}
    depth, width = context.shape.layers, context.shape.width
    layers = list(dict.fromkeys(scaled(places, depth) for places in _LAYERS_TO_TRY))
    below = [rank for rank in _RANKS_TO_TRY if rank < width]
    return {"layers": layers, "positions": _POSITIONS_TO_TRY, **dict.fromkeys(ranks, below)}


def check_places(method: str, layers: Sequence[int], rank: int, shape: BackboneShape) -> None:
    """Raises InputError if the backbone has no such layers, is no wider than the rank, or has several states."""
    check_streams(shape)
    if not layers or len(set(layers)) < len(layers):
        raise InputError(f"{method}: layers must name at least one layer, each once, found {list(layers)}")
    wrong = [layer for layer in layers if not 0 <= layer < shape.layers]
    if wrong:
        raise InputError(f"{method}: no layer {wrong[0]}; the backbone has layers 0 to {shape.layers - 1}")
    if rank >= shape.width:
        raise InputError(f"{method}: rank {rank} must be below the backbone's width, {shape.width}")
