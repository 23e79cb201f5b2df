"""Edits at several layers: the adapter that acts, and the set that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.adapters._intervention import Edit, Intervention, identity_edit, random_edit
from lampbench.adapters._positions import Positions
from lampbench.backbone import Window
from lampbench.core import InputError

_PARTS = ("rotation", "weight", "bias")


@dataclass(frozen=True)
class Edits:
    """One edit at each of some decoder layers (0-based), acting at given positions.

    An :class:`lampbench.backbone.Adapter`. Several attached in turn act in that order.
    """

    layers: Mapping[int, Edit]
    positions: Positions

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: Window) -> Iterator[None]:
        """Edit the outputs of ``layers`` inside the ``with`` block."""
        with ExitStack() as stack:
            for number, edit in self.layers.items():
                handle = layers[number].register_forward_hook(_hook(edit, self.positions, window))
                stack.callback(handle.remove)
            yield

    def save(self, path: Path) -> None:
        """Write a safetensors file: ``<layer>.rotation``, ``<layer>.weight``, ``<layer>.bias``, float32."""
        from safetensors.torch import save_file

        save_file(
            {
                f"{number}.{part}": getattr(edit, part).detach().cpu().contiguous()
                for number, edit in self.layers.items()
                for part in _PARTS
            },
            path,
        )

    @classmethod
    def load(cls, path: Path, positions: Positions, device: str) -> Edits:
        """Read what ``save`` wrote; raises InputError where the file is not such a file."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(path, device=device)
            numbers = sorted({int(name.split(".")[0]) for name in tensors})
            edits = {n: Edit(*(tensors[f"{n}.{part}"] for part in _PARTS)) for n in numbers}
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise InputError(f"{path}: not a file of saved interventions: {error}") from error
        return cls(edits, positions)


class InterventionSet(nn.Module):
    """Trainable interventions, one at each chosen layer."""

    def __init__(self, start: Mapping[int, Edit], positions: Positions) -> None:
        super().__init__()
        self.positions = positions
        self.interventions = nn.ModuleDict({str(number): Intervention(edit) for number, edit in start.items()})

    @classmethod
    def fresh(
        cls,
        layers: Sequence[int],
        width: int,
        rank: int,
        positions: Positions,
        *,
        identity: bool,
        seed: int,
        device: str = "cpu",
    ) -> InterventionSet:
        """New interventions after ``layers``, starting as the identity or as pyreft starts them."""
        generator = torch.Generator().manual_seed(seed)
        make = identity_edit if identity else random_edit
        return cls({number: make(width, rank, generator) for number in layers}, positions).to(device)

    def current(self) -> Edits:
        """The edits at the present parameters; gradients reach the parameters."""
        return Edits({int(n): module.edit() for n, module in self._modules_by_layer()}, self.positions)

    @torch.no_grad()
    def frozen(self) -> Edits:
        """The edits as plain tensors: what predicts, and what is saved."""
        return Edits({int(n): module.edit().detached() for n, module in self._modules_by_layer()}, self.positions)

    @property
    def parameter_count(self) -> int:
        """Trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _modules_by_layer(self) -> list[tuple[str, Any]]:
        return list(self.interventions.items())


def intervention_parameters(width: int, rank: int, layers: int) -> int:
    """Trainable parameters of ``layers`` interventions: 2 x rank x width + rank each."""
    return layers * (2 * rank * width + rank)


def _hook(edit: Edit, positions: Positions, window: Window) -> Callable[[nn.Module, Any, Any], Any]:
    def after_layer(module: nn.Module, arguments: Any, output: Any) -> Any:
        # A decoder layer returns a tensor in transformers 5 and a tuple in 4.
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        mask = positions.mask(window, hidden.shape[1])
        if mask is None:
            edited = edit(hidden)
        elif mask.any():
            edited = hidden.index_put((mask,), edit(hidden[mask]))
        else:
            return None
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    return after_layer
