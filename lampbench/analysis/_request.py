"""What is to be measured: resolved and named before any weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lampbench.backbone import BackboneInfo
from lampbench.bases import PromptMethod
from lampbench.core import InputError, digest
from lampbench.data import Dataset
from lampbench.runner import Plan, Planner, Skip

# Raised whenever a change here could change a delta vector, or how it is stored.
FORMAT = 1
Source = Literal["queries", "history"]


@dataclass(frozen=True)
class Asking:
    """What the user chose beside the run's own settings.

    Attributes:
        context: The method whose prompts are the personalized ones.
        overrides: Its settings.
        layers: Decoder layers, 0-based; None for all.
        source: Ask the evaluated queries, or each history item after strictly earlier ones.
        most: At most so many queries a user (of the history the latest); None for all.
    """

    context: str = "rag"
    overrides: Mapping[str, Any] | None = None
    layers: tuple[int, ...] | None = None
    source: Source = "queries"
    most: int | None = None


@dataclass(frozen=True)
class Request:
    """Delta vectors to collect.

    Attributes:
        plan: The task, and the method whose prompts are the personalized ones, with its config.
        backbone: The plan's own.
        data: The evaluated users and queries that are asked.
        layers: Decoder layers, 0-based, ascending.
        identity: Everything that can change a delta vector.
    """

    plan: Plan
    backbone: BackboneInfo
    data: Dataset
    layers: tuple[int, ...]
    source: Source
    most: int | None
    identity: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A folder's name that no other identity has."""
        return f"{self.plan.task.name}-{digest(self.identity)[:12]}"


def resolve(planner: Planner, task: str, asking: Asking) -> Request:
    """Everything about the delta vectors of ``task`` but the vectors.

    Raises:
        InputError: A name, setting, file, model or layer is wrong, or there are fewer than two users.
    """
    plan = planner.plan(asking.context, task, asking.overrides or {})
    if isinstance(plan, Skip):
        raise InputError(f"--context {asking.context} cannot do {task}: {plan.reason}")
    if not issubclass(plan.method_type, PromptMethod) or plan.backbone is None:
        raise InputError(
            f"--context {asking.context}: expected a method that puts something before the query, such as rag or pag"
        )
    data = plan.dataset
    if len(data.users) < 2:
        raise InputError(f"{task}: {len(data.users)} user; shifts are compared over users, give at least 2 (--users)")
    layers = _layers(asking.layers, plan.backbone.shape.layers)
    identity = {
        "format": FORMAT,
        **{
            key: plan.identity[key]
            for key in ("task", "task_version", "protocol", "protocol_hash", "limit", "prompt_hash", "backbone", "seed")
        },
        "context": {key: plan.identity[key] for key in ("method", "method_version", "config")},
        "layers": list(layers),
        "position": "last prompt token",
        "source": asking.source,
        "most": asking.most,
    }
    if plan.backbone.dtype != "float32":
        # There rounding may depend on the batch.
        identity["batch_size"] = plan.settings.batch_size
    return Request(plan, plan.backbone, data, layers, asking.source, asking.most, identity)


def _layers(wanted: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    if wanted is None:
        return tuple(range(depth))
    for layer in wanted:
        if not 0 <= layer < depth:
            raise InputError(f"--layers: no layer {layer}; the backbone has layers 0 to {depth - 1}")
    if not wanted:
        raise InputError(f"--layers: expected layers from 0 to {depth - 1}, comma-separated, or all; found none")
    return tuple(sorted(set(wanted)))
