"""Both observations on one task's delta vectors, one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lampbench.analysis._deltas import Counts, Deltas
from lampbench.analysis._recommend import Recommendation, recommend
from lampbench.analysis._statistics import LayerShifts, collective, personal, project, rank_result
from lampbench.core import derive_seed

# PerFit's layers are about 15 of 32; the paper does not say which layer its Table 1 is of.
_SHOWN_DEPTH = 15 / 32


@dataclass(frozen=True)
class TaskShifts:
    """Both observations on one task.

    Attributes:
        identity: What the delta vectors are of.
        label: What data that is not real calls itself, such as "mini (synthetic)".
        depth, width: Of the backbone.
        counts: How much was measured.
        recommendation: What follows for PerFit.
    """

    task: str
    identity: Mapping[str, Any]
    label: str | None
    depth: int
    width: int
    counts: Counts
    layers: tuple[LayerShifts, ...]
    recommendation: Recommendation

    @property
    def shown(self) -> LayerShifts:
        """The layer that represents the task: the measured one nearest to the depth of PerFit's layer 15 of 32."""
        wanted = _SHOWN_DEPTH * self.depth
        return min(self.layers, key=lambda own: abs(own.layer - wanted))

    def to_json(self) -> dict[str, Any]:
        """What ``shifts.json`` holds of the task."""
        return {
            "task": self.task,
            "label": self.label,
            "identity": dict(self.identity),
            "depth": self.depth,
            "width": self.width,
            "users": self.counts.users,
            "users_without_query": self.counts.silent,
            "users_with_two_halves": self.counts.split,
            "queries": self.counts.queries,
            "cut_prompts": self.counts.cut,
            "bare_queries": self.counts.bare,
            "shown_layer": self.shown.layer,
            "layers": [own.to_json() for own in self.layers],
            "recommendation": asdict(self.recommendation),
        }


def measure(
    deltas: Deltas, draws: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> TaskShifts:
    """Both observations; one layer's vectors are in memory at a time.

    Args:
        deltas: Collected delta vectors.
        draws: Resamples of users for intervals; None to choose by size.
        progress: Called with layers done and layers in all.
    """
    plan, data, shape = deltas.request.plan, deltas.request.data, deltas.request.backbone.shape
    layers = []
    for place, layer in enumerate(deltas.request.layers):
        layers.append(_layer(deltas, place, layer, draws))
        progress(place + 1, len(deltas.request.layers))
    return TaskShifts(
        task=plan.task.name,
        identity=deltas.request.identity,
        label=data.label,
        depth=shape.layers,
        width=shape.width,
        counts=deltas.counts,
        layers=tuple(layers),
        recommendation=recommend(layers, shape.layers, shape.width),
    )


def _layer(deltas: Deltas, place: int, layer: int, draws: int | None) -> LayerShifts:
    vectors = deltas.layer(place)
    # By the layer's number, so that a layer's intervals do not depend on which others were asked for.
    seed = derive_seed(deltas.request.plan.settings.seed, "shifts", str(layer))
    return LayerShifts(
        layer,
        rank_result(vectors.whole, centre=False, draws=draws, seed=seed),
        rank_result(vectors.whole, centre=True, draws=draws, seed=seed),
        collective(vectors.whole),
        personal(*vectors.halves, seed=seed),
        project(vectors.whole),
    )
