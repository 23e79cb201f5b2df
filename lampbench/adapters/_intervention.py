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

An ``Edit`` is the map itself, as plain tensors, for one user or stacked for many; ``Edits`` are
the maps of several layers at their ``Positions``, ready to be attached to a backbone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lampbench.core import InputError, later

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lampbench.backbone import PassWindow
else:
    torch, nn = later("torch"), later("torch.nn")

Kind = Literal["loreft", "noreft", "direft", "consreft", "lobireft"]
KINDS: tuple[Kind, ...] = ("loreft", "noreft", "direft", "consreft", "lobireft")
WITH_WEIGHT = ("loreft", "noreft", "direft")
# Called with a module, its arguments and its output; returns another output, or None to keep it.
LayerHook = Callable[["nn.Module", Any, Any], Any]
_POSITIONS = re.compile(r"(?:f(\d+))?(?:\+?l(\d+))?")


@dataclass(frozen=True, slots=True)
class Edit:
    """The map phi at one layer; with a leading dimension on every tensor, one map per user.

    Attributes:
        rotation: R (or P), shape (…, rank, width).
        weight: W, shape (…, rank, width); None for kinds without it.
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

    def _inner(self) -> Tensor | None:
        """What multiplies h inside the brackets."""
        if self.kind == "direft":
            return self.weight
        if self.kind == "consreft":
            return -self.rotation
        return None if self.weight is None else self.weight - self.rotation


@dataclass(frozen=True, slots=True)
class Positions:
    """Every token, or the first and last tokens of the prompt.

    Written as in pyreft: ``all`` (prompt and generated tokens), ``l8`` (the prompt's last 8),
    ``f4`` (its first 4), ``f4+l4``. Prompt positions act at prefill only; their effect stays in the KV cache.
    """

    first: int = 0
    last: int = 0
    everything: bool = False

    @classmethod
    def parse(cls, text: str) -> Positions:
        """Read ``all``, ``f<n>``, ``l<m>`` or ``f<n>+l<m>``; raises ValueError otherwise."""
        if text == "all":
            return cls(everything=True)
        match = _POSITIONS.fullmatch(text)
        first, last = (int(part or 0) for part in match.groups()) if match else (0, 0)
        if first + last == 0 or text.startswith("+"):
            raise ValueError(f"positions are 'all', 'f<n>', 'l<m>' or 'f<n>+l<m>' (such as f4+l4), found {text!r}")
        return cls(first, last)

    def __str__(self) -> str:
        if self.everything:
            return "all"
        return "+".join(f"{name}{count}" for name, count in (("f", self.first), ("l", self.last)) if count)

    @property
    def suffix(self) -> int | None:
        """How many of the prompt's last tokens hold all positions; None if other positions are among them."""
        return self.last if self.last and not self.first and not self.everything else None

    def places(self, window: PassWindow, columns: int) -> tuple[Tensor, Tensor]:
        """The pass's columns that hold the positions, the same number for every row.

        Not for ``all``, where every column is edited.

        Args:
            window: Where the prompts lie.
            columns: Columns of this pass.

        Returns:
            Column of each position within the pass, and whether the row has that position in this
            pass (a short prompt has fewer), both of shape (rows, first + last).
        """
        device = window.starts.device
        starts, ends = window.starts.unsqueeze(1), window.ends.unsqueeze(1)
        head = starts + torch.arange(self.first, device=device)
        tail = ends - self.last + torch.arange(self.last, device=device)
        # A prompt shorter than first + last has each of its tokens once.
        once = torch.cat([head < ends, tail >= starts + self.first], dim=1)
        place = torch.cat([head, tail], dim=1) - window.offset
        inside = (place >= 0) & (place < columns)
        return place.clamp(0, columns - 1), once & inside


@dataclass(frozen=True)
class Edits:
    """One edit at each of some decoder layers (0-based), acting at given positions.

    An ``lampbench.backbone.Adapter``. Several attached in turn act in that order.

    Attributes:
        layers: Layer number -> its edit, one for every row or stacked over users.
        positions: Where they act.
        users: Of stacked edits, the user of each prompt, shape (prompts,).
    """

    layers: Mapping[int, Edit]
    positions: Positions
    users: Tensor | None = None

    @property
    def tail(self) -> int:
        """How many of a prompt's last tokens are treated by their distance from the end."""
        return 0 if self.positions.everything else self.positions.last

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: PassWindow) -> Iterator[None]:
        """Edit the outputs of ``layers`` inside the ``with`` block."""
        with ExitStack() as stack:
            for number, edit in self.layers.items():
                stack.enter_context(layers[number].register_forward_hook(self._hook(edit, window)))
            yield

    def _hook(self, edit: Edit, window: PassWindow) -> LayerHook:
        def edited(hidden: Tensor) -> Tensor | None:
            if not self.positions.everything and window.offset >= window.width:
                return None
            own = edit if self.users is None else edit.of_rows(self.users[window.rows])
            return own(hidden) if self.positions.everything else self._at_places(own, hidden, window)

        return after_layer(edited)

    def _at_places(self, edit: Edit, hidden: Tensor, window: PassWindow) -> Tensor:
        columns, there = self.positions.places(window, hidden.shape[1])
        rows = torch.arange(len(hidden), device=hidden.device).unsqueeze(1).expand_as(columns)
        edited = edit(hidden[rows, columns])
        return hidden.index_put((rows[there], columns[there]), edited[there])


def after_layer(change: Callable[[Tensor], Tensor | None]) -> LayerHook:
    """A forward hook of a decoder layer that replaces its hidden states by ``change`` of them, unless that is None."""

    def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
        # A decoder layer returns a tensor in transformers 5 and a tuple in 4.
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        if hidden.dim() != 3:
            raise InputError(
                f"interventions: the model's layers hand on hidden states of shape {tuple(hidden.shape)}; expected "
                "(rows, columns, width); use a method with LoRA"
            )
        changed = change(hidden)
        return (changed, *output[1:]) if isinstance(output, tuple) and changed is not None else changed

    return hook


def check_rank(width: int, rank: int) -> None:
    """Raise ValueError unless ``rank`` is below ``width``."""
    if width <= rank:
        raise ValueError(f"the rank ({rank}) must be below the backbone's width ({width})")


def random_edit(
    width: int, rank: int, generator: torch.Generator, dtype: torch.dtype | None = None, kind: Kind = "loreft"
) -> Edit:
    """A start as pyreft makes it: R random orthonormal, W and b uniform as ``nn.Linear``'s. Not the identity.

    Without W, b is uniform from 0 to 1. ``dtype`` is float32 if it is None.
    """
    dtype = dtype or torch.float32
    bound = width**-0.5

    def uniform(*shape: int, low: float = -bound, high: float = bound) -> Tensor:
        return torch.empty(*shape, dtype=dtype).uniform_(low, high, generator=generator)

    rotation = uniform(rank, width) if kind == "noreft" else _orthonormal(width, rank, generator, dtype)
    if kind not in WITH_WEIGHT:
        return Edit(rotation, None, uniform(rank, low=0.0, high=1.0), kind)
    return Edit(rotation, uniform(rank, width), uniform(rank), kind)


def identity_edit(
    width: int, rank: int, generator: torch.Generator, dtype: torch.dtype | None = None, kind: Kind = "loreft"
) -> Edit:
    """A start that changes nothing: R random orthonormal, b = 0, and W = R (loreft, noreft) or 0 (direft).

    ``dtype`` is float32 if it is None.

    Raises:
        ValueError: ``consreft``, which replaces a part of h by a constant and can never change nothing.
    """
    if kind == "consreft":
        raise ValueError("consreft cannot start as the identity; choose another start or kind")
    dtype = dtype or torch.float32
    rotation = _orthonormal(width, rank, generator, dtype)
    bias = torch.zeros(rank, dtype=dtype)
    if kind == "lobireft":
        return Edit(rotation, None, bias, kind)
    return Edit(rotation, torch.zeros_like(rotation) if kind == "direft" else rotation.clone(), bias, kind)


def named_tensors(edits: Mapping[int, Edit]) -> dict[str, Tensor]:
    """Copies of the edits' tensors on the CPU, named ``<layer>.rotation``, ``.weight`` and ``.bias``."""
    parts = {
        f"{layer}.{name}": getattr(edit, name)
        for layer, edit in edits.items()
        for name in ("rotation", "weight", "bias")
    }
    return {name: tensor.detach().cpu().clone() for name, tensor in parts.items() if tensor is not None}


def edit_parameters(width: int, rank: int, kind: Kind = "loreft") -> int:
    """Trainable parameters of one intervention."""
    return (2 if kind in WITH_WEIGHT else 1) * rank * width + rank


def _orthonormal(width: int, rank: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    columns: Tensor = torch.linalg.qr(torch.randn(width, rank, dtype=torch.float64, generator=generator)).Q
    return columns.transpose(-1, -2).to(dtype).contiguous()
