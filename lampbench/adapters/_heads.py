"""Edits of attention heads' outputs, before a linear map mixes them (Yin et al., LoFiT, NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lampbench.adapters._spec import AdapterSpec, EvaluatedBank, SoloAdapter, State, TensorBank, master_dtype
from lampbench.backbone import attention_outputs
from lampbench.core import InputError, later

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lampbench.backbone import PassWindow, TransformersBackbone
else:
    torch, nn = later("torch"), later("torch.nn")

HeadEditKind = Literal["scale", "offset"]

_FILE = "heads.safetensors"
_ABOUT = "heads"


@dataclass(frozen=True)
class EditedHeads:
    """Heads of one decoder layer that are edited.

    Attributes:
        layer: Number of the layer.
        path: Name, inside the layer, of the linear map that mixes the heads: its input is their outputs, side by side.
        heads: Which of them, ascending.
        of: How many there are.
        width: Of one head's output.
        name: Of its parameters, shape (heads, width).
    """

    layer: int
    path: str
    heads: tuple[int, ...]
    of: int
    width: int
    name: str

    @property
    def shape(self) -> tuple[int, int]:
        """Of its parameters."""
        return len(self.heads), self.width


@dataclass(frozen=True)
class HeadEdits:
    """Edits of heads at work, at every token: an ``lampbench.backbone.Adapter``.

    Attributes:
        values: Of each layer's edited heads, shape (…, heads, width); stacked ones have a leading dimension over users.
        kind: ``scale``: an output z becomes z (1 + a); ``offset``: z + v.
        users: Of stacked values, the user of each prompt, shape (prompts,).
    """

    values: Mapping[EditedHeads, Tensor]
    kind: HeadEditKind
    users: Tensor | None = None

    @property
    def tail(self) -> int:
        """None of a prompt's tokens is treated by its distance from the end."""
        return 0

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: PassWindow) -> Iterator[None]:
        """Edit the inputs of the maps that mix the heads inside the ``with`` block."""
        with ExitStack() as stack:
            for place in self.values:
                module = layers[place.layer].get_submodule(place.path)
                stack.enter_context(module.register_forward_pre_hook(self._hook(place, window)))
            yield

    def _hook(self, place: EditedHeads, window: PassWindow) -> Callable[[nn.Module, Any], Any]:
        values = self.values[place]
        heads = torch.tensor(place.heads, device=values.device)

        def before_map(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            outputs = arguments[0]
            if outputs.dim() != 3:
                raise InputError(
                    f"heads: the model's attention heads have outputs of shape {tuple(outputs.shape)}; expected "
                    "(rows, columns, width); use a method with LoRA"
                )
            own = values.unsqueeze(0) if self.users is None else values[self.users[window.rows]]
            whole = own.new_zeros(len(own), place.of, place.width).index_copy(1, heads, own).flatten(1).unsqueeze(1)
            exact = outputs.to(own.dtype)
            edited = exact + whole if self.kind == "offset" else exact * (1 + whole)
            return (edited.to(outputs.dtype), *arguments[1:])

        return before_map


@dataclass(frozen=True)
class HeadSpec(AdapterSpec):
    """A vector per attention head that scales its output or is added to it; untrained, it changes nothing.

    Attributes:
        kind: ``scale`` or ``offset``.
        heads: Layer and head of each, 0-based; None for all heads.
    """

    kind: HeadEditKind
    heads: tuple[tuple[int, int], ...] | None = None

    def places(self, backbone: TransformersBackbone) -> list[EditedHeads]:
        """The edited heads, layer by layer.

        Raises:
            InputError: The model has none, or not these.
        """
        found, known = [], attention_outputs(backbone.model, backbone.layers)
        for layer, output in known.items():
            own = range(output.heads) if self.heads is None else sorted(head for at, head in self.heads if at == layer)
            if own:
                name = f"{layer}.{self.kind}"
                found.append(EditedHeads(layer, output.path, tuple(own), output.heads, output.width, name))
        for layer, head in self.heads or ():
            if layer not in known or not 0 <= head < known[layer].heads:
                raise InputError(f"heads: the model has no attention head {head} in layer {layer}")
        return found

    def shapes(self, backbone: TransformersBackbone) -> dict[str, tuple[int, int]]:
        """Names and shapes of one user's parameters."""
        return {place.name: place.shape for place in self.places(backbone)}

    def fresh(self, backbone: TransformersBackbone, seed: int) -> State:
        """Zeros."""
        return {name: torch.zeros(shape, dtype=master_dtype(backbone)) for name, shape in self.shapes(backbone).items()}

    def neutral(self, backbone: TransformersBackbone) -> State:
        """Zeros."""
        return self.fresh(backbone, 0)

    def bank(self, backbone: TransformersBackbone, slots: int) -> HeadBank:
        """Stacked vectors."""
        return HeadBank(self.places(backbone), self.kind, slots, master_dtype(backbone), backbone.device)

    @contextmanager
    def alone(self, backbone: TransformersBackbone, start: State) -> Iterator[SoloAdapter]:
        """One user's vectors as plain parameters."""
        yield _LoneHeads(self.places(backbone), self.kind, start, backbone.device)

    def frozen(
        self, backbone: TransformersBackbone, states: Sequence[State], users: Sequence[int] | None = None
    ) -> HeadEdits:
        """Trained vectors, a user's own on each prompt."""

        def all_users(name: str) -> Tensor:
            own = states[0][name] if users is None else torch.stack([state[name] for state in states])
            return own.to(backbone.device)

        owners = None if users is None else torch.tensor(users, device=backbone.device)
        return HeadEdits({place: all_users(place.name) for place in self.places(backbone)}, self.kind, owners)

    def parameter_count(self, backbone: TransformersBackbone) -> int:
        """Of all edited heads."""
        return sum(heads * width for heads, width in self.shapes(backbone).values())

    def constant_layers(self, backbone: TransformersBackbone) -> int:
        """Everything below the lowest layer with an edited head."""
        return min(place.layer for place in self.places(backbone))

    def adapted_modules(self, backbone: TransformersBackbone) -> list[nn.Module]:
        """The maps that mix the edited heads."""
        return [backbone.layers[place.layer].get_submodule(place.path) for place in self.places(backbone)]

    def save(self, state: State, folder: Path, backbone: TransformersBackbone) -> None:
        """Write ``heads.safetensors``: ``<layer>.<kind>``, shape (heads, width); the heads as metadata."""
        from safetensors.torch import save_file

        save_file(
            {name: own.contiguous() for name, own in state.items()}, folder / _FILE, {_ABOUT: self._text(backbone)}
        )

    def load(self, folder: Path, backbone: TransformersBackbone) -> State:
        """Read that file."""
        from safetensors import SafetensorError, safe_open

        path = folder / _FILE
        try:
            with safe_open(path, framework="pt") as file:
                about = (file.metadata() or {}).get(_ABOUT, "nothing")
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not a file of saved heads: {error}") from error
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if about != self._text(backbone) or shapes != self.shapes(backbone):
            raise InputError(
                f"{path}: not these heads: expected {self._text(backbone)}, {self.shapes(backbone)}; "
                f"found {about}, {shapes}"
            )
        return {name: tensor.to(master_dtype(backbone)) for name, tensor in found.items()}

    def _text(self, backbone: TransformersBackbone) -> str:
        heads = ", ".join(f"{place.layer}.{head}" for place in self.places(backbone) for head in place.heads)
        return f"{self.kind} of {heads}"


class HeadBank(TensorBank):
    """The vectors of every edited head, stacked over slots."""

    def __init__(
        self, places: Sequence[EditedHeads], kind: HeadEditKind, slots: int, dtype: torch.dtype, device: str
    ) -> None:
        super().__init__({place.name: place.shape for place in places}, slots, dtype, device)
        self.places = tuple(places)
        self.kind: HeadEditKind = kind

    def evaluated(self) -> EvaluatedBank:
        """The parameters themselves: there is nothing to evaluate."""
        values: dict[EditedHeads, Tensor] = {place: self.parameters[place.name] for place in self.places}
        return EvaluatedBank(lambda slots, keys: HeadEdits(values, self.kind, slots))


class _LoneHeads(SoloAdapter):
    """One user's vectors."""

    def __init__(self, places: Sequence[EditedHeads], kind: HeadEditKind, start: State, device: str) -> None:
        self._kind: HeadEditKind = kind
        self._own = {place: nn.Parameter(start[place.name].detach().clone().to(device)) for place in places}

    def parameters(self) -> list[nn.Parameter]:
        return list(self._own.values())

    def adapter(self, dropout: Tensor | None = None) -> HeadEdits:
        return HeadEdits(self._own, self._kind)

    def state(self) -> State:
        return {place.name: parameter.detach().cpu().clone() for place, parameter in self._own.items()}
