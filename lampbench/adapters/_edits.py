"""Interventions at several layers: the spec, what acts, and the single-user form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lampbench.adapters._intervention import (
    Edit,
    Intervention,
    Kind,
    check_rank,
    edit_parameters,
    identity_edit,
    random_edit,
)
from lampbench.adapters._intervention_bank import InterventionBank
from lampbench.adapters._positions import Positions
from lampbench.adapters._spec import AdapterSpec, DropoutKeys, LoneAdapter, State, master_dtype
from lampbench.backbone import TransformersBackbone, Window
from lampbench.core import InputError

_FILE = "interventions.safetensors"
_ABOUT = "interventions"


@dataclass(frozen=True)
class Edits:
    """One edit at each of some decoder layers (0-based), acting at given positions.

    An :class:`lampbench.backbone.Adapter`. Several attached in turn act in that order.

    Attributes:
        layers: Layer number -> its edit, one for every row or stacked over users.
        positions: Where they act.
        users: Of stacked edits, the user of each prompt, shape (prompts,).
    """

    layers: Mapping[int, Edit]
    positions: Positions
    users: Tensor | None = None

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: Window) -> Iterator[None]:
        """Edit the outputs of ``layers`` inside the ``with`` block."""
        with ExitStack() as stack:
            for number, edit in self.layers.items():
                handle = layers[number].register_forward_hook(self._hook(edit, window))
                stack.callback(handle.remove)
            yield

    def _hook(self, edit: Edit, window: Window) -> Callable[[nn.Module, Any, Any], Any]:
        def after_layer(module: nn.Module, arguments: Any, output: Any) -> Any:
            # A decoder layer returns a tensor in transformers 5 and a tuple in 4.
            hidden: Tensor = output[0] if isinstance(output, tuple) else output
            if not self.positions.everything and window.offset >= window.width:
                return None
            own = edit if self.users is None else edit.of_rows(self.users[window.rows])
            edited = own(hidden) if self.positions.everything else self._at_places(own, hidden, window)
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return after_layer

    def _at_places(self, edit: Edit, hidden: Tensor, window: Window) -> Tensor:
        columns, there = self.positions.places(window, hidden.shape[1])
        rows = torch.arange(len(hidden), device=hidden.device).unsqueeze(1).expand_as(columns)
        edited = edit(hidden[rows, columns])
        return hidden.index_put((rows[there], columns[there]), edited[there])


@dataclass(frozen=True)
class InterventionSpec(AdapterSpec):
    """One intervention after each of some decoder layers.

    Attributes:
        layers: Layer numbers, 0-based.
        rank: Of each intervention.
        positions: Which tokens they edit.
        kind: Which formula; see :class:`Edit`.
        start: ``random`` as pyreft starts, or ``identity``.
    """

    layers: tuple[int, ...]
    rank: int
    positions: Positions
    kind: Kind = "loreft"
    start: Literal["random", "identity"] = "random"

    def fresh(self, backbone: TransformersBackbone, seed: int) -> State:
        """Untrained interventions; raises ValueError where the kind has no such start."""
        generator = torch.Generator().manual_seed(seed)
        make = identity_edit if self.start == "identity" else random_edit
        width, dtype = backbone.shape.width, master_dtype(backbone)
        check_rank(width, self.rank)
        return _state({layer: make(width, self.rank, generator, dtype, self.kind) for layer in self.layers})

    def bank(self, backbone: TransformersBackbone, slots: int) -> InterventionBank:
        """Stacked interventions."""
        return InterventionBank(
            self.layers,
            backbone.shape.width,
            self.rank,
            self.kind,
            slots,
            lambda edits, users: Edits(edits, self.positions, users),
            dtype=master_dtype(backbone),
            device=backbone.device,
        )

    @contextmanager
    def alone(self, backbone: TransformersBackbone, start: State) -> Iterator[InterventionSet]:
        """One user's interventions as plain modules."""
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
        """Everything up to and with the lowest edited layer's own output."""
        return min(self.layers) + 1

    @property
    def suffix(self) -> int | None:
        """The edited tokens at a prompt's end, where all edited tokens are there."""
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
        def part(layer: int, name: str) -> Tensor:
            return state[f"{layer}.{name}"].to(device)

        return {
            layer: Edit(
                part(layer, "rotation"),
                part(layer, "weight") if f"{layer}.weight" in state else None,
                part(layer, "bias"),
                self.kind,
            )
            for layer in self.layers
        }


class InterventionSet(nn.Module, LoneAdapter):
    """Trainable interventions of one user, one at each chosen layer."""

    def __init__(self, start: Mapping[int, Edit], positions: Positions) -> None:
        super().__init__()
        self.positions = positions
        self.interventions = nn.ModuleDict({str(number): Intervention(edit) for number, edit in start.items()})

    def parameters(self, recurse: bool = True) -> list[nn.Parameter]:  # type: ignore[override]
        """What an optimizer moves."""
        return list(super().parameters(recurse))

    def adapter(self, dropout: DropoutKeys | None = None) -> Edits:
        """The edits at the present parameters; interventions have no dropout."""
        return Edits({int(number): module.edit() for number, module in self._by_layer()}, self.positions)

    @torch.no_grad()
    def state(self) -> State:
        """The present edits, copied."""
        return _state({int(number): module.edit().detached() for number, module in self._by_layer()})

    def _by_layer(self) -> list[tuple[str, Any]]:
        return list(self.interventions.items())


def _state(edits: Mapping[int, Edit]) -> dict[str, Tensor]:
    parts = {
        f"{layer}.{name}": getattr(edit, name)
        for layer, edit in edits.items()
        for name in ("rotation", "weight", "bias")
    }
    return {name: tensor.cpu() for name, tensor in parts.items() if tensor is not None}


def _shape_text(state: State) -> str:
    """Names, shapes and, where they are not float32, kinds of numbers."""

    def text(name: str, tensor: Tensor) -> str:
        kind = "" if tensor.dtype == torch.float32 else f" {tensor.dtype}"
        return f"{name} {'x'.join(map(str, tensor.shape))}{kind}"

    return ", ".join(text(name, tensor) for name, tensor in sorted(state.items()))
