"""Several LoRAs that act together, as the one LoRA that does the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from lampbench.adapters._lora_spec import LoraSpec
from lampbench.adapters._spec import State
from lampbench.backbone import TransformersBackbone


def combined(parts: Sequence[tuple[LoraSpec, State]], backbone: TransformersBackbone) -> tuple[LoraSpec, State]:
    """One LoRA whose change of every linear map is the sum of the parts' changes.

    The parts' A are stacked, and their B, scaled, side by side. Every module gets the rank of the one with the most
    parts, filled with zeros, because not every program reads ranks that differ from module to module.

    Args:
        parts: At least one.
        backbone: What they act on.
    """
    if len(parts) == 1:
        return parts[0]
    ranks = Counter[str]()
    for spec, _ in parts:
        for place in spec.places(backbone):
            ranks[place.name] += spec.rank
    rank = max(ranks.values())
    layers = None
    if all(spec.layers is not None for spec, _ in parts):
        layers = tuple(sorted({layer for spec, _ in parts for layer in spec.layers or ()}))
    targets = tuple(dict.fromkeys(name for spec, _ in parts for name in spec.targets))
    # With alpha equal to the rank its own scale is 1.
    whole = LoraSpec(rank, float(rank), targets=targets, layers=layers)
    dtype = next(iter(parts[0][1].values())).dtype
    state = {name: torch.zeros(shape, dtype=dtype) for name, shape in whole.shapes(backbone).items()}
    used = Counter[str]()
    for spec, own in parts:
        for place in spec.places(backbone):
            ours = slice(used[place.name], used[place.name] + spec.rank)
            state[place.a][ours] = own[place.a]
            state[place.b][:, ours] = spec.alpha / spec.rank * own[place.b]
            used[place.name] += spec.rank
    return whole, state
