"""LoReFT interventions: a low-rank edit of the residual stream after a decoder layer.

``phi(h) = h + R^T (W h + b - R h)`` with R of orthonormal rows (Wu et al., ReFT, NeurIPS 2024;
PerFit, ICLR 2026, uses it in both stages). An :class:`Edit` is the map itself, as plain tensors; an
:class:`Intervention` holds the parameters that an optimizer moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Edit:
    """The map phi at one layer.

    Attributes:
        rotation: R, shape (rank, width), orthonormal rows.
        weight: W, shape (rank, width).
        bias: b, shape (rank,).
    """

    rotation: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """Apply phi to ``hidden`` (…, width), computed in the edit's dtype and returned in ``hidden``'s."""
        exact = hidden.to(self.rotation.dtype)
        shift = nn.functional.linear(exact, self.weight - self.rotation, self.bias)
        return (exact + shift @ self.rotation).to(hidden.dtype)

    def detached(self) -> Edit:
        """A copy that no gradient reaches."""
        return Edit(self.rotation.detach().clone(), self.weight.detach().clone(), self.bias.detach().clone())


class Intervention(nn.Module):
    """Trainable parameters of one edit: 2 x rank x width + rank.

    R is kept orthonormal by the Householder parametrization of torch's
    ``nn.utils.parametrizations.orthogonal`` (and so of pyreft): the same coordinates, hence the
    same gradients and the same optimizer path. Two things differ. The orthogonal completion of the
    starting R, there a width x width buffer, is kept as ``rank`` reflectors. And the signs that the
    coordinates' diagonal stands for are fixed, because weight decay would move that diagonal off
    -1, which torch then truncates to 0, silently erasing R.
    """

    coordinates: nn.Parameter
    weight: nn.Parameter
    bias: nn.Parameter
    reflectors: Tensor
    scales: Tensor
    signs: Tensor

    def __init__(self, start: Edit) -> None:
        """Parameters at which the map equals ``start``."""
        super().__init__()
        columns = start.rotation.detach().mT
        width, rank = columns.shape
        if width <= rank:
            raise ValueError(f"the rank ({rank}) must be below the backbone's width ({width})")
        reflectors, scales = torch.geqrf(columns)
        self.register_buffer("reflectors", reflectors, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        # Of orthonormal columns, the triangular factor is diagonal with entries +1 and -1.
        self.register_buffer("signs", reflectors.diagonal().sign().unsqueeze(-1), persistent=False)
        self.coordinates = nn.Parameter(-torch.eye(width, rank, dtype=columns.dtype, device=columns.device))
        self.weight = nn.Parameter(start.weight.detach().clone())
        self.bias = nn.Parameter(start.bias.detach().clone())

    def edit(self) -> Edit:
        """The map at the present parameters, differentiable; evaluate it once a step."""
        return Edit(self._rotation(), self.weight, self.bias)

    def _rotation(self) -> Tensor:
        below = self.coordinates.tril(diagonal=-1)
        scales = 2.0 / (1.0 + (below * below).sum(dim=-2))
        columns = -torch.linalg.householder_product(below, scales)
        rank = columns.shape[-1]
        turned = torch.cat([columns[:rank] * self.signs, columns[rank:]])
        completed: Tensor = torch.ormqr(self.reflectors, self.scales, turned)
        return completed.transpose(-1, -2)


def random_edit(width: int, rank: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Edit:
    """A start as pyreft makes it: R random orthonormal, W and b uniform as ``nn.Linear``'s. Not the identity."""
    rotation = _orthonormal(width, rank, generator, dtype)
    bound = width**-0.5
    weight = torch.empty(rank, width, dtype=dtype).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(rank, dtype=dtype).uniform_(-bound, bound, generator=generator)
    return Edit(rotation, weight, bias)


def identity_edit(width: int, rank: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Edit:
    """A start that changes nothing: R random orthonormal, W = R, b = 0."""
    rotation = _orthonormal(width, rank, generator, dtype)
    return Edit(rotation, rotation.clone(), torch.zeros(rank, dtype=dtype))


def _orthonormal(width: int, rank: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    columns: Tensor = torch.linalg.qr(torch.randn(width, rank, dtype=torch.float64, generator=generator)).Q
    return columns.transpose(-1, -2).to(dtype).contiguous()
