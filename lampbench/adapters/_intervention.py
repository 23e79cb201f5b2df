"""Interventions: low-rank edits of the residual stream after a decoder layer.

Five kinds, named and defined as in pyreft (Wu et al., ReFT, NeurIPS 2024; PerFit, ICLR 2026, uses
LoReFT in both stages); R has orthonormal rows, P is free:

==========  ==============================  =======================
kind        phi(h)                          parameters
==========  ==============================  =======================
loreft      h + R^T (W h + b - R h)         2 x rank x width + rank
noreft      h + P^T (W h + b - P h)         2 x rank x width + rank
direft      h + R^T (W h + b)               2 x rank x width + rank
consreft    h + R^T (b - R h)               rank x width + rank
lobireft    h + R^T b                       rank x width + rank
==========  ==============================  =======================

An :class:`Edit` is the map itself, as plain tensors, for one user or stacked for many; an
:class:`Intervention` holds the parameters that an optimizer moves when one user trains alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["loreft", "noreft", "direft", "consreft", "lobireft"]
KINDS: tuple[Kind, ...] = ("loreft", "noreft", "direft", "consreft", "lobireft")
WITH_WEIGHT = ("loreft", "noreft", "direft")


@dataclass(frozen=True, slots=True)
class Edit:
    """The map phi at one layer; with a leading dimension on every tensor, one map a user.

    Attributes:
        rotation: R (or P), shape (…, rank, width).
        weight: W, shape (…, rank, width); None for the kinds that have none.
        bias: b, shape (…, rank).
        kind: Which formula.
    """

    rotation: Tensor
    weight: Tensor | None
    bias: Tensor
    kind: Kind = "loreft"

    def __call__(self, hidden: Tensor) -> Tensor:
        """Apply phi to ``hidden``, computed in the edit's dtype and returned in ``hidden``'s.

        Args:
            hidden: Shape (…, width); of a stacked edit, (users, columns, width).
        """
        exact = hidden.to(self.rotation.dtype)
        inner = self._inner()
        if self.bias.dim() == 1:
            shift = self.bias if inner is None else nn.functional.linear(exact, inner, self.bias)
            return (exact + shift @ self.rotation).to(hidden.dtype)
        shift = self.bias.unsqueeze(1)
        if inner is None:
            return (exact + shift @ self.rotation).to(hidden.dtype)
        return torch.baddbmm(exact, torch.baddbmm(shift, exact, inner.mT), self.rotation).to(hidden.dtype)

    def of_rows(self, users: Tensor) -> Edit:
        """Of a stacked edit, the map of each row's user: ``users`` has shape (rows,)."""
        weight = None if self.weight is None else self.weight[users]
        return Edit(self.rotation[users], weight, self.bias[users], self.kind)

    def detached(self) -> Edit:
        """A copy that no gradient reaches."""
        weight = None if self.weight is None else self.weight.detach().clone()
        return Edit(self.rotation.detach().clone(), weight, self.bias.detach().clone(), self.kind)

    def _inner(self) -> Tensor | None:
        """What multiplies h inside the brackets."""
        if self.kind == "direft":
            return self.weight
        if self.kind == "consreft":
            return -self.rotation
        return None if self.weight is None else self.weight - self.rotation


class Intervention(nn.Module):
    """Trainable parameters of one edit.

    R is kept orthonormal by the Householder parametrization of torch's
    ``nn.utils.parametrizations.orthogonal`` (and so of pyreft): the same coordinates, hence the
    same gradients and the same optimizer path. Two things differ. The orthogonal completion of the
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
        """The map at the present parameters, differentiable; evaluate it once a step."""
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


def check_rank(width: int, rank: int) -> None:
    """Raises ValueError where ``rank`` is not below ``width``."""
    if width <= rank:
        raise ValueError(f"the rank ({rank}) must be below the backbone's width ({width})")


def random_edit(
    width: int, rank: int, generator: torch.Generator, dtype: torch.dtype = torch.float32, kind: Kind = "loreft"
) -> Edit:
    """A start as pyreft makes it: R random orthonormal, W and b uniform as ``nn.Linear``'s. Not the identity.

    Without W, b is uniform from 0 to 1.
    """
    bound = width**-0.5

    def uniform(*shape: int, low: float = -bound, high: float = bound) -> Tensor:
        return torch.empty(*shape, dtype=dtype).uniform_(low, high, generator=generator)

    rotation = uniform(rank, width) if kind == "noreft" else _orthonormal(width, rank, generator, dtype)
    if kind not in WITH_WEIGHT:
        return Edit(rotation, None, uniform(rank, low=0.0, high=1.0), kind)
    return Edit(rotation, uniform(rank, width), uniform(rank), kind)


def identity_edit(
    width: int, rank: int, generator: torch.Generator, dtype: torch.dtype = torch.float32, kind: Kind = "loreft"
) -> Edit:
    """A start that changes nothing: R random orthonormal, b = 0, and W = R (loreft, noreft) or 0 (direft).

    Raises:
        ValueError: ``consreft``, which replaces a part of h by a constant and can never change nothing.
    """
    if kind == "consreft":
        raise ValueError("consreft cannot start as the identity; choose another start or kind")
    rotation = _orthonormal(width, rank, generator, dtype)
    bias = torch.zeros(rank, dtype=dtype)
    if kind == "lobireft":
        return Edit(rotation, None, bias, kind)
    return Edit(rotation, torch.zeros_like(rotation) if kind == "direft" else rotation.clone(), bias, kind)


def edit_parameters(width: int, rank: int, kind: Kind = "loreft") -> int:
    """Trainable parameters of one intervention."""
    return (2 if kind in WITH_WEIGHT else 1) * rank * width + rank


def _orthonormal(width: int, rank: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    columns: Tensor = torch.linalg.qr(torch.randn(width, rank, dtype=torch.float64, generator=generator)).Q
    return columns.transpose(-1, -2).to(dtype).contiguous()
