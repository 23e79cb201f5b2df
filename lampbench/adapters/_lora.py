"""LoRA: what it is, how it acts, and its stack over users."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.adapters._dropout import dropout_mask
from lampbench.adapters._spec import AdapterSpec, Bank, DropoutKeys, Evaluated, LoneAdapter, State, master_dtype
from lampbench.backbone import Adapter, TransformersBackbone, Window
from lampbench.core import InputError


@dataclass(frozen=True)
class Target:
    """A linear map of the backbone that LoRA adapts.

    Attributes:
        layer: Number of the decoder layer that it is in.
        path: Its name inside the layer, such as ``self_attn.q_proj``.
        name: Its name inside the model.
        number: Its place among all targets: part of a dropout mask's key.
        inputs, outputs: Its widths.
    """

    layer: int
    path: str
    name: str
    number: int
    inputs: int
    outputs: int

    @property
    def a(self) -> str:
        """Name of A in a user's parameters, as peft calls it."""
        return f"{self.name}.lora_A.weight"

    @property
    def b(self) -> str:
        """Name of B."""
        return f"{self.name}.lora_B.weight"

    def shapes(self, rank: int) -> dict[str, tuple[int, int]]:
        """Names and shapes of A and B."""
        return {self.a: (rank, self.inputs), self.b: (self.outputs, rank)}


@dataclass(frozen=True)
class LoraSpec(AdapterSpec):
    """Low-rank additions to linear maps: ``W x + (alpha / rank) B A dropout(x)`` (Hu et al., ICLR 2022).

    A starts uniform within 1 / sqrt(inputs), as peft's default does, and B at 0.

    Attributes:
        rank: Rows of A.
        alpha: Scale, divided by the rank.
        dropout: Probability that a value of x is dropped in training.
        targets: Last names of the adapted modules.
        layers: Decoder layers, 0-based; None for all.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    layers: tuple[int, ...] | None = None

    def places(self, backbone: TransformersBackbone) -> list[Target]:
        """The adapted modules, from the first layer on.

        Raises:
            InputError: A name of ``targets`` is no linear map of the model's decoder layers.
        """
        prefix = next(name for name, module in backbone.model.named_modules() if module is backbone.layers)
        found: list[Target] = []
        for number, layer in enumerate(backbone.layers):
            if self.layers is not None and number not in self.layers:
                continue
            for path, module in layer.named_modules():
                if path.rpartition(".")[2] in self.targets and isinstance(module, nn.Linear):
                    name = f"{prefix}.{number}.{path}"
                    found.append(Target(number, path, name, len(found), module.in_features, module.out_features))
        absent = set(self.layers or ()) - set(range(len(backbone.layers)))
        if absent:
            raise InputError(f"LoRA on layer {min(absent)}: the backbone has layers 0 to {len(backbone.layers) - 1}")
        missing = set(self.targets) - {place.path.rpartition(".")[2] for place in found}
        if missing:
            known = sorted({p.rpartition(".")[2] for p, m in layer.named_modules() if isinstance(m, nn.Linear)})
            raise InputError(
                f"LoRA on {sorted(missing)[0]!r}: {type(backbone.model).__name__} has no such linear map in its "
                f"decoder layers; it has {', '.join(known)}"
            )
        return found

    def fresh(self, backbone: TransformersBackbone, seed: int) -> State:
        """A random, B zero."""
        generator = torch.Generator().manual_seed(seed)
        dtype = master_dtype(backbone)
        state: dict[str, Tensor] = {}
        for place in self.places(backbone):
            a, b = place.shapes(self.rank).items()
            bound = place.inputs**-0.5
            state[a[0]] = torch.empty(a[1], dtype=torch.float64).uniform_(-bound, bound, generator=generator).to(dtype)
            state[b[0]] = torch.zeros(b[1], dtype=dtype)
        return state

    def shapes(self, backbone: TransformersBackbone) -> dict[str, tuple[int, int]]:
        """Names and shapes of one user's parameters."""
        return {name: shape for place in self.places(backbone) for name, shape in place.shapes(self.rank).items()}

    def bank(self, backbone: TransformersBackbone, slots: int) -> LoraBank:
        """Stacked A and B."""
        return LoraBank(self, self.places(backbone), slots, dtype=master_dtype(backbone), device=backbone.device)

    def alone(self, backbone: TransformersBackbone, start: State) -> AbstractContextManager[LoneAdapter]:
        """Peft's own LoRA, wrapped around the backbone for as long as it trains."""
        from lampbench.adapters._peft import peft_lora

        return peft_lora(self, backbone, start)

    def frozen(
        self, backbone: TransformersBackbone, states: Sequence[State], users: Sequence[int] | None = None
    ) -> LoraWeights:
        """Trained A and B, a user's own on each prompt."""
        places, device = self.places(backbone), backbone.device
        # Once, and not at every pass; masters are for training.
        dtype = next(backbone.model.parameters()).dtype

        def all_users(name: str) -> Tensor:
            own = states[0][name] if users is None else torch.stack([state[name] for state in states])
            return own.to(device, dtype)

        weights = {place: (all_users(place.a), all_users(place.b)) for place in places}
        owners = None if users is None else torch.tensor(users, device=device)
        return LoraWeights(weights, self.alpha / self.rank, owners)

    def parameter_count(self, backbone: TransformersBackbone) -> int:
        """Of all targets."""
        return sum(math.prod(shape) for shape in self.shapes(backbone).values())

    def constant_layers(self, backbone: TransformersBackbone) -> int:
        """Everything below the lowest adapted layer."""
        return min(place.layer for place in self.places(backbone))

    def adapted_modules(self, backbone: TransformersBackbone) -> list[nn.Module]:
        """The targets."""
        return [backbone.model.get_submodule(place.name) for place in self.places(backbone)]

    def changes(self, backbone: TransformersBackbone, state: State) -> Iterator[tuple[str, Tensor]]:
        """What merging adds to the backbone's weights, one parameter at a time: its name, and a float32 matrix."""
        for place in self.places(backbone):
            yield f"{place.name}.weight", (self.alpha / self.rank) * (state[place.b] @ state[place.a])

    def save(self, state: State, folder: Path, backbone: TransformersBackbone) -> None:
        """Write a PEFT folder: ``adapter_config.json``, ``adapter_model.safetensors``."""
        from lampbench.adapters._peft import save_folder

        save_folder(self, state, folder, backbone)

    def load(self, folder: Path, backbone: TransformersBackbone) -> State:
        """Read a PEFT folder of such a LoRA, whoever wrote it."""
        from lampbench.adapters._peft import load_folder

        return load_folder(self, folder, backbone)


@dataclass(frozen=True)
class LoraWeights:
    """LoRA at work: an :class:`lampbench.backbone.Adapter`.

    Attributes:
        weights: A, shape (…, rank, inputs), and B, shape (…, outputs, rank), of each target; the leading
            dimension, where there is one, is over users.
        scale: alpha / rank.
        users: Of stacked weights, the user of each prompt, shape (prompts,).
        dropout: Probability; only with ``keys``, which only training gives.
    """

    weights: Mapping[Target, tuple[Tensor, Tensor]]
    scale: float
    users: Tensor | None = None
    dropout: float = 0.0
    keys: DropoutKeys | None = None

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: Window) -> Iterator[None]:
        """Add to the outputs of the targets inside the ``with`` block."""
        with ExitStack() as stack:
            for target in self.weights:
                module = layers[target.layer].get_submodule(target.path)
                stack.callback(module.register_forward_hook(self._hook(target, window)).remove)
            yield

    def _hook(self, target: Target, window: Window) -> Callable[[nn.Module, Any, Any], Tensor]:
        a, b = self.weights[target]

        def after_map(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = arguments[0]
            if self.dropout and self.keys is not None:
                x = dropped(x, self.keys, target.number, window, self.dropout)
            if self.users is None:
                low = nn.functional.linear(x, a.to(x.dtype))
                return output + self.scale * nn.functional.linear(low, b.to(x.dtype))
            users = self.users[window.rows]
            # Gathered before the cast: a user's rows add up in the master's dtype.
            own_a, own_b = (part[users].to(x.dtype) for part in (a, b))
            return torch.baddbmm(output, torch.bmm(x, own_a.mT), own_b.mT, alpha=self.scale)

        return after_map


def dropped(x: Tensor, keys: DropoutKeys, module: int, window: Window, probability: float) -> Tensor:
    """``x`` (rows, columns, features) with some values dropped and the others scaled up."""
    columns = torch.arange(window.offset, window.offset + x.shape[1], device=x.device)
    positions = columns - window.starts.unsqueeze(1)
    kept = dropout_mask(keys.rows[window.rows], module, positions, x.shape[-1], probability)
    return x * (kept.to(x.dtype) / (1.0 - probability))


class LoraBank(Bank):
    """A and B of every target, stacked over slots."""

    def __init__(
        self, spec: LoraSpec, places: Sequence[Target], slots: int, *, dtype: torch.dtype, device: str
    ) -> None:
        super().__init__()
        self.spec = spec
        self.places = tuple(places)
        for place in places:
            for name, shape in place.shapes(spec.rank).items():
                self.parameters[name] = nn.Parameter(torch.zeros(slots, *shape, dtype=dtype, device=device))

    @torch.no_grad()
    def put(self, slot: int, start: State) -> None:
        """Copy ``start`` into the slot."""
        for name, parameter in self.parameters.items():
            parameter[slot] = start[name].to(parameter)

    def take(self, slot: int) -> State:
        """A copy of the slot."""
        return {name: parameter[slot].detach().cpu().clone() for name, parameter in self.parameters.items()}

    def evaluated(self) -> Evaluated:
        """The parameters themselves: there is nothing to evaluate."""
        weights = {place: (self.parameters[place.a], self.parameters[place.b]) for place in self.places}
        return _EvaluatedLora(weights, self.spec)


@dataclass(frozen=True)
class _EvaluatedLora(Evaluated):
    weights: Mapping[Target, tuple[Tensor, Tensor]]
    spec: LoraSpec

    def adapter(self, slots: Tensor, dropout: DropoutKeys | None) -> Adapter:
        return LoraWeights(self.weights, self.spec.alpha / self.spec.rank, slots, self.spec.dropout, dropout)
