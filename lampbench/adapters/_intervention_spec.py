"""Interventions at several layers as one spec, and the file of a user's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lampbench.adapters._intervention import (
    Edit,
    Edits,
    Kind,
    Positions,
    check_rank,
    edit_parameters,
    identity_edit,
    named_tensors,
    random_edit,
)
from lampbench.adapters._spec import AdapterSpec, State, master_dtype
from lampbench.core import BackboneShape, InputError, later

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lampbench.adapters._intervention_bank import InterventionBank, InterventionSet
    from lampbench.backbone import TransformersBackbone
else:
    torch = later("torch")

_FILE = "interventions.safetensors"
_ABOUT = "interventions"


@dataclass(frozen=True)
class InterventionSpec(AdapterSpec):
    """One intervention after each of some decoder layers.

    Attributes:
        layers: Layer numbers, 0-based.
        rank: Of each intervention.
        positions: Which tokens they edit.
        kind: Which formula; see ``Edit``.
        start: ``random`` as pyreft starts, or ``identity``.
    """

    layers: tuple[int, ...]
    rank: int
    positions: Positions
    kind: Kind = "loreft"
    start: Literal["random", "identity"] = "random"

    def fresh(self, backbone: TransformersBackbone, seed: int) -> State:
        """Untrained interventions; raises ValueError if the kind has no such start."""
        generator = torch.Generator().manual_seed(seed)
        make = identity_edit if self.start == "identity" else random_edit
        width, dtype = backbone.shape.width, master_dtype(backbone)
        check_rank(width, self.rank)
        check_streams(backbone.shape)
        return named_tensors({layer: make(width, self.rank, generator, dtype, self.kind) for layer in self.layers})

    def neutral(self, backbone: TransformersBackbone) -> State:
        """The identity; raises ValueError if the kind has none."""
        return replace(self, start="identity").fresh(backbone, 0)

    def bank(self, backbone: TransformersBackbone, slots: int) -> InterventionBank:
        """Stacked interventions."""
        from lampbench.adapters._intervention_bank import InterventionBank

        return InterventionBank(
            self.layers, self.positions, self.kind,
            slots=slots, width=backbone.shape.width, rank=self.rank,
            dtype=master_dtype(backbone), device=backbone.device,
        )  # fmt: skip

    @contextmanager
    def alone(self, backbone: TransformersBackbone, start: State) -> Iterator[InterventionSet]:
        """One user's interventions as plain modules."""
        from lampbench.adapters._intervention_bank import InterventionSet

        yield InterventionSet(self._edits(start), self.positions).to(backbone.device)

    def frozen(
        self, backbone: TransformersBackbone, states: Sequence[State], users: Sequence[int] | None = None
    ) -> Edits:
        """Trained interventions, a user's own on each prompt."""
        if users is None:
            (state,) = states
            return Edits(self._edits(state, backbone.device), self.positions)
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        owners = torch.tensor(users, device=backbone.device)
        return Edits(self._edits(stacked, backbone.device), self.positions, owners)

    def parameter_count(self, backbone: TransformersBackbone) -> int:
        """Of all layers."""
        return len(self.layers) * edit_parameters(backbone.shape.width, self.rank, self.kind)

    def constant_layers(self, backbone: TransformersBackbone) -> int:
        """Everything up to the lowest edited layer's own output."""
        return min(self.layers) + 1

    @property
    def suffix(self) -> int | None:
        """The edited tokens at a prompt's end, if all edited tokens are there."""
        return self.positions.suffix

    def save(self, state: State, folder: Path, backbone: TransformersBackbone) -> None:
        """Write ``interventions.safetensors``: ``<layer>.rotation``, ``.weight``, ``.bias``; the kind as metadata."""
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        # One entry: safetensors writes several in any order, and the same state must give the same bytes.
        save_file(tensors, folder / _FILE, {_ABOUT: f"{self.kind} at {self.positions}"})

    def load(self, folder: Path, backbone: TransformersBackbone) -> State:
        """Read that file."""
        from safetensors import SafetensorError, safe_open

        path = folder / _FILE
        try:
            with safe_open(path, framework="pt") as file:
                kind = (file.metadata() or {}).get(_ABOUT, "none").partition(" at ")[0]
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not a file of saved interventions: {error}") from error
        shapes, expected = _shape_text(found), _shape_text(self.fresh(backbone, 0))
        if kind != self.kind or shapes != expected:
            raise InputError(
                f"{path}: not these interventions: expected {self.kind} with {expected}, found {kind} with {shapes}"
            )
        return found

    def _edits(self, state: State, device: str = "cpu") -> dict[int, Edit]:
        placed = {name: tensor.to(device) for name, tensor in state.items()}
        return {
            layer: Edit(placed[f"{layer}.rotation"], placed.get(f"{layer}.weight"), placed[f"{layer}.bias"], self.kind)
            for layer in self.layers
        }


def check_streams(shape: BackboneShape) -> None:
    """Raises InputError if the backbone's layers hand on more than one hidden state of a token."""
    if shape.streams > 1:
        raise InputError(
            f"interventions: the model's layers hand on {shape.streams} hidden states of each token, and which of them "
            "to edit is not defined; use a method with LoRA, or a model with one"
        )


def _shape_text(state: State) -> str:
    """Names, shapes, and dtypes other than float32."""

    def text(name: str, tensor: Tensor) -> str:
        kind = "" if tensor.dtype == torch.float32 else f" {tensor.dtype}"
        return f"{name} {'x'.join(map(str, tensor.shape))}{kind}"

    return ", ".join(text(name, tensor) for name, tensor in sorted(state.items()))
