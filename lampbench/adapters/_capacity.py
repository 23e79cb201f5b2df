"""How much fits: users at a time, columns a pass, bytes of constants, from free memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from lampbench.adapters._spec import AdapterSpec, master_dtype
from lampbench.backbone import TransformersBackbone

# Shares of what is free when training begins; the rest is for what cannot be foreseen.
_FOR_USERS = 0.2
_FOR_PASSES = 0.4
_FOR_CONSTANTS = 0.25
# A parameter is held four times: itself, its gradient and two moments.
_COPIES = 4
# What a layer keeps for backward, a column, in multiples of the width: attention's and the MLP's inputs.
_KEPT_A_LAYER = 24
_MOST_USERS = 256
# Beyond so many columns a pass gains nothing: the device is filled, and a CPU's caches overflow.
_MOST_COLUMNS = {"cpu": 4096, "cuda": 16384}


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
    width, layers = backbone.shape.width, backbone.shape.layers
    a_column = _KEPT_A_LAYER * width * layers * next(backbone.model.parameters()).element_size()
    most = _MOST_COLUMNS["cuda" if backbone.device.startswith("cuda") else "cpu"]
    return Capacity(
        users=max(1, min(_MOST_USERS, int(free * _FOR_USERS / a_user))),
        columns=max(1, min(most, int(free * _FOR_PASSES / a_column))),
        constants=int(free * _FOR_CONSTANTS),
    )


def free_memory(device: str) -> int:
    """Bytes that can still be taken on ``device``."""
    if device.startswith("cuda"):
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocation that failed, on a GPU or the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )
