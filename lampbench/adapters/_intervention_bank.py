"""Interventions of many users, stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lampbench.adapters._intervention import WITH_WEIGHT, Edit, Kind, check_rank
from lampbench.adapters._spec import Bank, DropoutKeys, Evaluated, State
from lampbench.backbone import Adapter

# From stacked edits by layer, and the user of each row, to what acts.
MakeAdapter = Callable[[Mapping[int, Edit], Tensor], Adapter]


class InterventionBank(Bank):
    """One intervention a slot and layer, over the same coordinates as :class:`Intervention`.

    The orthonormal map is evaluated once a step for all slots, by products of small matrices (the
    compact form of a product of Householder reflectors, I - V T V^T), so a slot holds a few vectors of
    the backbone's width and no matrix of it.
    """

    def __init__(
        self,
        layers: Sequence[int],
        width: int,
        rank: int,
        kind: Kind,
        slots: int,
        make_adapter: MakeAdapter,
        *,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        super().__init__()
        check_rank(width, rank)
        self.layers = tuple(layers)
        self.kind = kind
        self._make_adapter = make_adapter

        def room(*shape: int) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        for layer in layers:
            if kind == "noreft":
                self.parameters[f"{layer}.rotation"] = nn.Parameter(room(rank, width))
            else:
                self.parameters[f"{layer}.coordinates"] = nn.Parameter(room(width, rank))
                self.constants |= {
                    f"{layer}.reflectors": room(width, rank),
                    f"{layer}.factor": room(rank, rank),
                    f"{layer}.signs": room(rank, 1),
                }
            if kind in WITH_WEIGHT:
                self.parameters[f"{layer}.weight"] = nn.Parameter(room(rank, width))
            self.parameters[f"{layer}.bias"] = nn.Parameter(room(rank))

    @torch.no_grad()
    def put(self, slot: int, start: State) -> None:
        """Parameters and reflectors at which the map equals ``start``."""
        for name, parameter in self.parameters.items():
            if name in start:
                parameter[slot] = start[name].to(parameter)
        if self.kind == "noreft":
            return
        for layer in self.layers:
            coordinates = self.parameters[f"{layer}.coordinates"]
            reflectors, factor, signs = _completed(start[f"{layer}.rotation"].to(coordinates).mT)
            self.constants[f"{layer}.reflectors"][slot] = reflectors
            self.constants[f"{layer}.factor"][slot] = factor
            self.constants[f"{layer}.signs"][slot] = signs
            coordinates[slot] = -torch.eye(*coordinates.shape[1:]).to(coordinates)

    @torch.no_grad()
    def take(self, slot: int) -> State:
        """The slot's map."""
        state: dict[str, Tensor] = {}
        for layer in self.layers:
            state[f"{layer}.rotation"] = self._rotation(layer, slice(slot, slot + 1))[0]
            for name in ("weight", "bias"):
                if f"{layer}.{name}" in self.parameters:
                    state[f"{layer}.{name}"] = self.parameters[f"{layer}.{name}"][slot]
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def evaluated(self) -> Evaluated:
        """All slots' maps; every pass of the step shares them."""
        rotations = {layer: self._rotation(layer) for layer in self.layers}
        leaves = {layer: rotation.detach().requires_grad_() for layer, rotation in rotations.items()}
        edits = {
            layer: Edit(leaf, self.parameters.get(f"{layer}.weight"), self.parameters[f"{layer}.bias"], self.kind)
            for layer, leaf in leaves.items()
        }
        return _EvaluatedEdits(edits, self._make_adapter, rotations, leaves)

    def _rotation(self, layer: int, slots: slice = slice(None)) -> Tensor:
        """R of the slots, shape (slots, rank, width)."""
        if self.kind == "noreft":
            return self.parameters[f"{layer}.rotation"][slots]
        coordinates = self.parameters[f"{layer}.coordinates"][slots]
        below, rank = coordinates.tril(diagonal=-1), coordinates.shape[-1]
        vectors = below + torch.eye(*coordinates.shape[1:]).to(coordinates)
        products = vectors.mT @ vectors
        inverse = products.triu(diagonal=1) + torch.diag_embed(products.diagonal(dim1=-2, dim2=-1) / 2)
        # The first columns of -(I - V T V^T), each row then given its fixed sign.
        inner = torch.linalg.solve_triangular(inverse, vectors[:, :rank].mT, upper=True)
        columns = vectors @ inner - torch.eye(*coordinates.shape[1:]).to(coordinates)
        turned = torch.cat([columns[:, :rank] * self.constants[f"{layer}.signs"][slots], columns[:, rank:]], dim=1)
        reflectors, factor = (self.constants[f"{layer}.{name}"][slots] for name in ("reflectors", "factor"))
        return (turned - reflectors @ (factor @ (reflectors.mT @ turned))).mT


@dataclass(frozen=True)
class _EvaluatedEdits(Evaluated):
    edits: Mapping[int, Edit]
    make_adapter: MakeAdapter
    rotations: Mapping[int, Tensor]
    leaves: Mapping[int, Tensor]

    def adapter(self, slots: Tensor, dropout: DropoutKeys | None) -> Adapter:
        return self.make_adapter(self.edits, slots)

    def backward(self) -> None:
        reached = [layer for layer, leaf in self.leaves.items() if leaf.grad is not None]
        torch.autograd.backward(
            [self.rotations[layer] for layer in reached], [self.leaves[layer].grad for layer in reached]
        )


def _completed(columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An orthogonal completion of orthonormal ``columns`` (width, rank): V, T and the signs they need."""
    packed, scales = torch.geqrf(columns)
    width, rank = columns.shape
    vectors = packed.tril(diagonal=-1) + torch.eye(width, rank).to(columns)
    factor = torch.zeros(rank, rank).to(columns)
    for j in range(rank):
        # Forward recurrence: it also holds where a reflector is the identity (scale 0).
        factor[:j, j] = -scales[j] * (factor[:j, :j] @ (vectors[:, :j].mT @ vectors[:, j]))
        factor[j, j] = scales[j]
    return vectors, factor, packed.diagonal().sign().unsqueeze(-1)
