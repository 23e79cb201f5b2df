"""How much fits: users at a time, columns a pass, bytes of constants, from free memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lampbench.adapters._spec import AdapterSpec, master_dtype
from lampbench.backbone import TransformersBackbone
from lampbench.core import free_host_memory

# Shares of what is free when training begins; the rest is for what cannot be foreseen.
_FOR_USERS = 0.2
_FOR_PASSES = 0.4
_FOR_CONSTANTS = 0.25
# A parameter is held four times: itself, its gradient and two moments.
_COPIES = 4
# What a layer keeps for backward, a column, in multiples of the width: attention's and the MLP's inputs.
_KEPT_A_LAYER = 24
_MOST_USERS = 256
# Keys and values of a column in three copies, at most (all heads, all layers), against what a column keeps.
_PAST = 3 * 2 / _KEPT_A_LAYER
# Beyond so many columns a pass gains nothing: the device is filled, and a CPU's caches overflow.
_MOST_COLUMNS = {"cpu": 2048, "cuda": 16384}


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one training may hold at a time.

    Attributes:
        users: Slots of the banks.
        columns: Of a pass, padding included.
        constants: Bytes of kept constants.
    """

    users: int
    columns: int
    constants: int


def capacity(backbone: TransformersBackbone, specs: Sequence[AdapterSpec]) -> Capacity:
    """What fits now on the backbone's device."""
    free = free_memory(backbone.device)
    masters = torch.finfo(master_dtype(backbone)).bits // 8
    a_user = _COPIES * masters * sum(spec.parameter_count(backbone) for spec in specs)
    most = _MOST_COLUMNS["cuda" if backbone.device.startswith("cuda") else "cpu"]
    return Capacity(
        users=max(1, min(_MOST_USERS, int(free * _FOR_USERS / a_user))),
        columns=max(1, min(most, int(free * _FOR_PASSES / column_bytes(backbone)))),
        constants=int(free * _FOR_CONSTANTS),
    )


def column_bytes(backbone: TransformersBackbone) -> int:
    """What one column of a pass through all layers keeps for backward, about."""
    shape = backbone.shape
    return int(_KEPT_A_LAYER * shape.width * shape.layers * next(backbone.model.parameters()).element_size())


class Room:
    """The room that rows take in a pass, in columns."""

    def __init__(self, backbone: TransformersBackbone) -> None:
        vocabulary = backbone.model.get_output_embeddings().weight.shape[0]
        # Logits, their gradient and what is between, in float32.
        self._target: float = 3 * 4 * vocabulary / column_bytes(backbone)

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
