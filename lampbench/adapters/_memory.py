"""How much fits (users at a time, columns per pass, bytes of constants), and what is kept within it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lampbench.adapters._spec import AdapterSpec, master_dtype
from lampbench.core import free_host_memory, later

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lampbench.backbone import TransformersBackbone
else:
    torch = later("torch")

# Shares of what is free when training begins; the rest is for what cannot be foreseen.
_FOR_USERS = 0.2
_FOR_PASSES = 0.4
_FOR_CONSTANTS = 0.25
# A parameter is held four times: itself, its gradient and two moments.
_COPIES = 4
# What a layer keeps for backward per column, in multiples of the width: attention's and the MLP's inputs.
_KEPT_PER_LAYER = 24
_MOST_USERS = 256
# Keys and values of a column in three copies, at most (all heads, all layers), against what a column keeps.
_PAST = 3 * 2 / _KEPT_PER_LAYER
# Beyond so many columns a pass gains nothing: the device is filled, and a CPU's caches overflow. Half of it is a little
# faster on a CPU, but another number sums gradients in another order, and rounding would change published rows.
_MOST_COLUMNS = {"cpu": 2048, "cuda": 16384}
# Of a pass that keeps nothing for backward: a CPU does it faster while what a layer writes stays in its caches, and
# short passes have less padding.
_MOST_COLUMNS_WITHOUT_GRADIENT = {"cpu": 512, "cuda": 16384}
# Logits whose loss is computed at a time: some MB on a CPU, so that they stay in its caches.
_LOGITS_AT_ONCE = {"cpu": 2**19, "cuda": 2**28}


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one training may keep in memory at a time.

    Attributes:
        users: Slots of the banks.
        columns: Of a pass, padding included.
        constants: Bytes of kept constants.
    """

    users: int
    columns: int
    constants: int


@dataclass(frozen=True)
class EngineOptions:
    """Bounds that change only the speed of training; None chooses by free memory.

    Attributes:
        users: Users at a time.
        columns: Columns of a pass.
        constants: Bytes of what is kept because it never changes; 0 computes it again every epoch.
        split_prompts: Whether a prompt whose last tokens alone are edited is split before them.
    """

    users: int | None = None
    columns: int | None = None
    constants: int | None = None
    split_prompts: bool = True

    def within(self, found: Capacity) -> Capacity:
        """The capacity to use."""
        given = {"users": self.users, "columns": self.columns, "constants": self.constants}
        return replace(found, **{name: value for name, value in given.items() if value is not None})


def capacity(backbone: TransformersBackbone, specs: Sequence[AdapterSpec], free: int) -> Capacity:
    """What fits into ``free`` bytes on the backbone's device."""
    masters = torch.finfo(master_dtype(backbone)).bits // 8
    per_user = masters * sum(_COPIES * spec.parameter_count(backbone) + spec.held_count(backbone) for spec in specs)
    most = _MOST_COLUMNS[_device_type(backbone)]
    return Capacity(
        users=max(1, min(_MOST_USERS, int(free * _FOR_USERS / per_user))),
        columns=max(1, min(most, int(free * _FOR_PASSES / PassRoom(backbone).column_bytes))),
        constants=int(free * _FOR_CONSTANTS),
    )


def columns_without_gradient(backbone: TransformersBackbone) -> int:
    """Columns beyond which a pass without gradients gains nothing."""
    return _MOST_COLUMNS_WITHOUT_GRADIENT[_device_type(backbone)]


def logits_at_once(backbone: TransformersBackbone) -> int:
    """Logits beyond which computing their loss together gains nothing."""
    return _LOGITS_AT_ONCE[_device_type(backbone)]


def _device_type(backbone: TransformersBackbone) -> str:
    return "cuda" if backbone.device.startswith("cuda") else "cpu"


class PassRoom:
    """The room that rows take in a pass, in columns.

    Attributes:
        column_bytes: What one column of a pass through all layers keeps for backward, about.
    """

    def __init__(self, backbone: TransformersBackbone) -> None:
        shape, number_bytes = backbone.shape, next(backbone.model.parameters()).element_size()
        self.column_bytes: int = _KEPT_PER_LAYER * shape.width * shape.layers * number_bytes
        vocabulary = backbone.model.get_output_embeddings().weight.shape[0]
        # Logits, their gradient and what is between, in float32.
        self._target: float = 3 * 4 * vocabulary / self.column_bytes

    def of(self, running: int, before: int, targets: int) -> int:
        """The room of one row.

        Args:
            running: Columns that run through the upper layers.
            before: Columns before them, whose keys and values are held, copied and appended to.
            targets: Columns with logits.
        """
        return math.ceil(running + _PAST * before + self._target * targets)


def free_memory(device: str) -> int:
    """Bytes that can still be taken on ``device``."""
    if device.startswith("cuda"):
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return free_host_memory()


@dataclass(frozen=True)
class Constants:
    """What the backbone computes for one example, whatever the adapters' parameters are.

    Attributes:
        hidden: Output of the highest constant layer, shape (columns, width), for the columns that run on;
            None if even the first layer is adapted.
        keys_values: Of the prompt's constant columns in the upper layers: those of one shape stacked, each of shape
            (how many, key-value heads, columns, head width); empty if every column runs on.
    """

    hidden: Tensor | None
    keys_values: Sequence[Tensor] = ()

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return sum(t.numel() * t.element_size() for t in (self.hidden, *self.keys_values) if t is not None)


class ConstantStore:
    """Keeps constants of examples up to a bound; above it they are computed again, which changes nothing.

    One store serves one backbone, one set of frozen adapters and one set of specs, so an example's name
    is the only thing that its constants depend on.

    Args:
        limit: Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._kept: dict[Hashable, Constants] = {}

    def get(self, example: Hashable) -> Constants | None:
        """The example's constants, or None if they were not kept."""
        return self._kept.get(example)

    def keep(self, example: Hashable, constants: Constants) -> None:
        """Keep them, if there is room."""
        if constants.bytes <= self._free:
            self._free -= constants.bytes
            self._kept[example] = constants

    def drop(self, example: Hashable) -> None:
        """Make room."""
        constants = self._kept.pop(example, None)
        if constants is not None:
            self._free += constants.bytes

    def close(self) -> bool:
        """Keep nothing from now on; False if that was so already."""
        was_open = self._free > 0 or bool(self._kept)
        self._kept.clear()
        self._free = 0
        return was_open
