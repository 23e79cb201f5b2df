"""Interventions in training: the parameters of one user who trains alone, and of many users stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.adapters._intervention import WITH_WEIGHT, Edit, Edits, Kind, Positions, check_rank, named_tensors
from lampbench.adapters._spec import Bank, EvaluatedBank, SoloAdapter, State


class Intervention(nn.Module):
    """Trainable parameters of one edit.

    R is kept orthonormal by the Householder parametrization of torch's
    ``nn.utils.parametrizations.orthogonal`` (and so of pyreft): the same coordinates, hence the
    same gradients. Two things differ. The orthogonal completion of the
    starting R, there a width x width buffer, is kept as ``rank`` reflectors. And the signs that the
    coordinates' diagonal stands for are fixed, because weight decay would move that diagonal off
    -1, which torch then truncates to 0, silently erasing R.
    """

    coordinates: nn.Parameter
    weight: nn.Parameter | None
    bias: nn.Parameter
    reflectors: Tensor
    scales: Tensor
    signs: Tensor

    def __init__(self, start: Edit) -> None:
        """Parameters at which the map equals ``start``."""
        super().__init__()
        self.kind = start.kind
        if self.kind == "noreft":
            self.coordinates = nn.Parameter(start.rotation.detach().clone())
        else:
            self._start_rotation(start.rotation.detach().mT)
        weight = None if start.weight is None else nn.Parameter(start.weight.detach().clone())
        self.register_parameter("weight", weight)
        self.bias = nn.Parameter(start.bias.detach().clone())

    def edit(self) -> Edit:
        """The map at the present parameters, differentiable; evaluate it once per step."""
        rotation = self.coordinates if self.kind == "noreft" else self._rotation()
        return Edit(rotation, self.weight, self.bias, self.kind)

    def _start_rotation(self, columns: Tensor) -> None:
        width, rank = columns.shape
        check_rank(width, rank)
        reflectors, scales = torch.geqrf(columns)
        self.register_buffer("reflectors", reflectors, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        # Of orthonormal columns, the triangular factor is diagonal with entries +1 and -1.
        self.register_buffer("signs", reflectors.diagonal().sign().unsqueeze(-1), persistent=False)
        self.coordinates = nn.Parameter(-torch.eye(width, rank, dtype=columns.dtype, device=columns.device))

    def _rotation(self) -> Tensor:
        below = self.coordinates.tril(diagonal=-1)
        scales = 2.0 / (1.0 + (below * below).sum(dim=-2))
        columns = -torch.linalg.householder_product(below, scales)
        rank = columns.shape[-1]
        turned = torch.cat([columns[:rank] * self.signs, columns[rank:]])
        completed: Tensor = torch.ormqr(self.reflectors, self.scales, turned)
        return completed.transpose(-1, -2)


class InterventionSet(nn.Module, SoloAdapter):
    """Trainable interventions of one user, one at each chosen layer."""

    def __init__(self, start: Mapping[int, Edit], positions: Positions) -> None:
        super().__init__()
        self.positions = positions
        self.interventions = nn.ModuleDict({str(layer): Intervention(edit) for layer, edit in start.items()})

    def parameters(self, recurse: bool = True) -> list[nn.Parameter]:  # type: ignore[override]
        """What an optimizer moves."""
        return list(super().parameters(recurse))

    def adapter(self, dropout: Tensor | None = None) -> Edits:
        """The edits at the present parameters; interventions have no dropout."""
        modules: dict[str, Any] = dict(self.interventions.items())
        return Edits({int(layer): module.edit() for layer, module in modules.items()}, self.positions)

    @torch.no_grad()
    def state(self) -> State:
        """The present edits, copied."""
        return named_tensors(self.adapter().layers)


class InterventionBank(Bank):
    """One intervention per slot and layer, over the same coordinates as ``Intervention``.

    The orthonormal map is evaluated once per step for all slots, by products of small matrices (the
    compact form of a product of Householder reflectors, I - V T V^T), so a slot holds a few vectors of
    the backbone's width and no matrix of it.
    """

    def __init__(
        self,
        layers: Sequence[int],
        positions: Positions,
        kind: Kind,
        *,
        slots: int,
        width: int,
        rank: int,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        super().__init__()
        check_rank(width, rank)
        self.layers = tuple(layers)
        self.positions = positions
        self.kind = kind

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
            completed = _completed(start[f"{layer}.rotation"].to(coordinates).mT)
            for name, tensor in zip(("reflectors", "factor", "signs"), completed, strict=True):
                self.constants[f"{layer}.{name}"][slot] = tensor
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

    def evaluated(self) -> EvaluatedBank:
        """All slots' maps; every pass of the step shares them."""
        rotations = {layer: self._rotation(layer) for layer in self.layers}
        leaves = {layer: rotation.detach().requires_grad_() for layer, rotation in rotations.items()}
        edits = {
            layer: Edit(leaf, self.parameters.get(f"{layer}.weight"), self.parameters[f"{layer}.bias"], self.kind)
            for layer, leaf in leaves.items()
        }

        def backward() -> None:
            reached = [layer for layer, leaf in leaves.items() if leaf.grad is not None]
            torch.autograd.backward([rotations[layer] for layer in reached], [leaves[layer].grad for layer in reached])

        return EvaluatedBank(lambda slots, keys: Edits(edits, self.positions, slots), backward)

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
