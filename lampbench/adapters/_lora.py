"""LoRA at work: the linear maps that it adapts, how it acts on them, and its stack over users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lampbench.adapters._dropout import dropped
from lampbench.adapters._spec import EvaluatedBank, TensorBank
from lampbench.core import InputError, later

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lampbench.backbone import PassWindow
else:
    torch, nn = later("torch"), later("torch.nn")


@dataclass(frozen=True)
class AdaptedMap:
    """A linear map of the backbone that LoRA adapts.

    Attributes:
        layer: Number of the decoder layer that it is in.
        path: Its name inside the layer, such as ``self_attn.q_proj``.
        name: Its name inside the model.
        number: Its place among all targets: part of a dropout mask's key.
        inputs, outputs: Its widths.
        transposed: Whether the model keeps its weights as (inputs, outputs), as GPT-2 does.
    """

    layer: int
    path: str
    name: str
    number: int
    inputs: int
    outputs: int
    transposed: bool = False

    @property
    def a(self) -> str:
        """Name of A in a user's parameters, as peft calls it."""
        return f"{self.name}.lora_A.weight"

    @property
    def b(self) -> str:
        """Name of B."""
        return f"{self.name}.lora_B.weight"

    @property
    def gate(self) -> str:
        """Name of the gate before the LoRA, if it has one."""
        return f"{self.name}.lora_gate"

    def shapes(self, rank: int) -> dict[str, tuple[int, int]]:
        """Names and shapes of A and B."""
        return {self.a: (rank, self.inputs), self.b: (self.outputs, rank)}


@dataclass(frozen=True)
class LoraWeights:
    """LoRA at work: an ``lampbench.backbone.Adapter``.

    Attributes:
        weights: A, shape (…, rank, inputs), and B, shape (…, outputs, rank), of each map; stacked weights have
            a leading dimension over users.
        scale: alpha / rank.
        users: Of stacked weights, the user of each prompt, shape (prompts,).
        dropout: Probability that a value of the input is dropped; it needs ``keys``.
        keys: In training, the key of each prompt's dropout masks, shape (prompts,), int64.
        gates: Of maps that have one, what decides how much of each token is read, shape (…, inputs): a token x is
            read as x sigmoid(x.gate).
    """

    weights: Mapping[AdaptedMap, tuple[Tensor, Tensor]]
    scale: float
    users: Tensor | None = None
    dropout: float = 0.0
    keys: Tensor | None = None
    gates: Mapping[AdaptedMap, Tensor] = field(default_factory=dict)

    @property
    def tail(self) -> int:
        """None of a prompt's tokens is treated by its distance from the end."""
        return 0

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: PassWindow) -> Iterator[None]:
        """Add to the outputs of the maps inside the ``with`` block."""
        with ExitStack() as stack:
            for target in self.weights:
                module = layers[target.layer].get_submodule(target.path)
                stack.enter_context(module.register_forward_hook(self._hook(target, window)))
            yield

    def _hook(self, target: AdaptedMap, window: PassWindow) -> Callable[[nn.Module, Any, Any], Tensor]:
        a, b = self.weights[target]
        gate = self.gates.get(target)

        def after_map(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = arguments[0]
            if self.dropout and self.keys is not None:
                x = dropped(x, self.keys, target.number, window, self.dropout)
            if self.users is None:
                if gate is not None:
                    x = x * torch.sigmoid(x @ gate.to(x.dtype)).unsqueeze(-1)
                low = nn.functional.linear(x, a.to(x.dtype))
                return output + self.scale * nn.functional.linear(low, b.to(x.dtype))
            users = self.users[window.rows]
            if x.dim() < 3:
                raise InputError(
                    f"LoRA on {target.path!r}: the model gives it tokens without saying whose they are; name other "
                    "modules, or use --engine solo"
                )
            # Gathered before the cast: a user's rows add up in the master's dtype.
            own_a, own_b = (part[users].to(x.dtype) for part in (a, b))
            # Some maps of latent attention see an axis of size 1 before the columns.
            flat, plain = x.flatten(1, -2), output.flatten(1, -2)
            if gate is not None:
                flat = flat * torch.sigmoid(torch.bmm(flat, gate[users].to(x.dtype).unsqueeze(-1)))
            return torch.baddbmm(plain, torch.bmm(flat, own_a.mT), own_b.mT, alpha=self.scale).view(output.shape)

        return after_map


class LoraBank(TensorBank):
    """A and B of every adapted map, stacked over slots."""

    def __init__(
        self,
        maps: Sequence[AdaptedMap],
        *,
        slots: int,
        rank: int,
        scale: float,
        dropout: float,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        shapes = {name: shape for place in maps for name, shape in place.shapes(rank).items()}
        super().__init__(shapes, slots, dtype, device)
        self.maps = tuple(maps)
        self.scale = scale
        self.dropout = dropout

    def evaluated(self) -> EvaluatedBank:
        """The parameters themselves: there is nothing to evaluate."""
        weights = {place: (self.parameters[place.a], self.parameters[place.b]) for place in self.maps}
        acting = LoraWeights(weights, self.scale, dropout=self.dropout)
        return EvaluatedBank(lambda slots, keys: replace(acting, users=slots, keys=keys))
