"""Gates before the maps of a trained LoRA, and what they are compared with: the maps' mean inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torch.nn.utils.rnn import pad_sequence

from lampbench.adapters._lora import LoraWeights
from lampbench.adapters._lora_spec import LoraSpec
from lampbench.adapters._spec import AdapterSpec, EvaluatedBank, SoloAdapter, State, TensorBank, exact, master_dtype
from lampbench.backbone import TransformersBackbone, one_logit
from lampbench.core import InputError, Pair

_FILE = "gates.safetensors"


@dataclass(frozen=True)
class GateSpec(AdapterSpec):
    """A trained gate g before each map of a LoRA that is not trained any more (PER-PCS, EMNLP 2024).

    The LoRA of a map reads x sigmoid(x.g) in place of its input x; the map itself reads x. Gates start at 0.

    A state holds the LoRA's parameters and the gates.

    Attributes:
        lora: The LoRA.
    """

    lora: LoraSpec

    def shapes(self, backbone: TransformersBackbone) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one user's gates."""
        return {place.gate: (place.inputs,) for place in self.lora.places(backbone)}

    def before(self, backbone: TransformersBackbone, lora: State) -> State:
        """Untrained gates before the trained LoRA ``lora``."""
        dtype = master_dtype(backbone)
        return {**lora, **{name: torch.zeros(shape, dtype=dtype) for name, shape in self.shapes(backbone).items()}}

    def fresh(self, backbone: TransformersBackbone, seed: int) -> State:
        """Untrained gates before an untrained LoRA."""
        return self.before(backbone, self.lora.fresh(backbone, seed))

    def neutral(self, backbone: TransformersBackbone) -> State:
        """As untrained: the LoRA's B is zero."""
        return self.fresh(backbone, 0)

    def bank(self, backbone: TransformersBackbone, slots: int) -> GateBank:
        """Stacked gates, and the LoRA of each slot."""
        return GateBank(self, backbone, slots)

    @contextmanager
    def alone(self, backbone: TransformersBackbone, start: State) -> Iterator[SoloAdapter]:
        """One user's gates."""
        yield _LoneGates(self, backbone, start)

    def frozen(
        self, backbone: TransformersBackbone, states: Sequence[State], users: Sequence[int] | None = None
    ) -> LoraWeights:
        """Trained gates before their LoRA."""
        acting, dtype = self.lora.frozen(backbone, states, users), next(backbone.model.parameters()).dtype
        gates = {
            place: (states[0][place.gate] if users is None else torch.stack([state[place.gate] for state in states]))
            for place in acting.weights
        }
        return replace(acting, gates={place: own.to(backbone.device, dtype) for place, own in gates.items()})

    def parameter_count(self, backbone: TransformersBackbone) -> int:
        """Of the gates: the inputs of all maps."""
        return sum(place.inputs for place in self.lora.places(backbone))

    def held_count(self, backbone: TransformersBackbone) -> int:
        """Of the LoRA."""
        return self.lora.parameter_count(backbone)

    def constant_layers(self, backbone: TransformersBackbone) -> int:
        """Everything below the lowest adapted layer."""
        return self.lora.constant_layers(backbone)

    def adapted_modules(self, backbone: TransformersBackbone) -> list[nn.Module]:
        """The LoRA's maps."""
        return self.lora.adapted_modules(backbone)

    def save(self, state: State, folder: Path, backbone: TransformersBackbone) -> None:
        """Write the LoRA as a PEFT folder, and ``gates.safetensors``."""
        from safetensors.torch import save_file

        own = self.shapes(backbone)
        self.lora.save({name: part for name, part in state.items() if name not in own}, folder, backbone)
        save_file({name: state[name].contiguous() for name in own}, folder / _FILE)

    def load(self, folder: Path, backbone: TransformersBackbone) -> State:
        """Read them; raises InputError for other files."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path, lora = folder / _FILE, self.lora.load(folder, backbone)
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not a file of saved gates: {error}") from error
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if shapes != self.shapes(backbone):
            raise InputError(f"{path}: expected one gate for each map of the LoRA, found {len(shapes)} others")
        return {**lora, **{name: found[name].to(master_dtype(backbone)) for name in shapes}}


class GateBank(TensorBank):
    """The gates of every map, stacked over slots; the LoRA behind them is constant."""

    def __init__(self, spec: GateSpec, backbone: TransformersBackbone, slots: int) -> None:
        dtype, device = master_dtype(backbone), backbone.device
        super().__init__(spec.shapes(backbone), slots, dtype, device)
        self.maps, self.scale = tuple(spec.lora.places(backbone)), spec.lora.alpha / spec.lora.rank
        for name, shape in spec.lora.shapes(backbone).items():
            self.constants[name] = torch.zeros(slots, *shape, dtype=dtype, device=device)

    @torch.no_grad()
    def put(self, slot: int, start: State) -> None:
        """Copy gates and LoRA into the slot."""
        super().put(slot, start)
        for name, constant in self.constants.items():
            constant[slot] = start[name].to(constant)

    def take(self, slot: int) -> State:
        """A copy of the slot's LoRA and gates."""
        lora = {name: constant[slot].cpu().clone() for name, constant in self.constants.items()}
        return {**lora, **super().take(slot)}

    def evaluated(self) -> EvaluatedBank:
        """The parameters themselves: there is nothing to evaluate."""
        weights = {place: (self.constants[place.a], self.constants[place.b]) for place in self.maps}
        acting = LoraWeights(weights, self.scale, gates={place: self.parameters[place.gate] for place in self.maps})
        return EvaluatedBank(lambda slots, keys: replace(acting, users=slots))


class _LoneGates(SoloAdapter):
    """One user's gates before a LoRA."""

    def __init__(self, spec: GateSpec, backbone: TransformersBackbone, start: State) -> None:
        places, device = spec.lora.places(backbone), backbone.device
        lora = {name: start[name].to(device) for name in spec.lora.shapes(backbone)}
        self._lora = lora
        self._own = {place: nn.Parameter(start[place.gate].detach().clone().to(device)) for place in places}
        weights = {place: (lora[place.a], lora[place.b]) for place in places}
        self._acting = LoraWeights(weights, spec.lora.alpha / spec.lora.rank, gates=self._own)

    def parameters(self) -> list[nn.Parameter]:
        return list(self._own.values())

    def adapter(self, dropout: Tensor | None = None) -> LoraWeights:
        return self._acting

    def state(self) -> State:
        gates = {place.gate: parameter.detach() for place, parameter in self._own.items()}
        return {name: tensor.cpu().clone() for name, tensor in {**self._lora, **gates}.items()}


@torch.inference_mode()
def mean_inputs(backbone: TransformersBackbone, spec: LoraSpec, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """What the maps of ``spec`` read at the targets' tokens, by the maps' names; shape (inputs,), float64, on the CPU.

    Each token's input is normalized as by a layer norm without parameters; then follow the mean over a target's tokens
    and the mean over ``pairs``.
    """
    encoded = sorted((backbone.encoder.pair(pair) for pair in pairs), key=lambda pair: len(pair[0]) + len(pair[1]))
    places, device, model = spec.places(backbone), backbone.model.device, backbone.model
    sums = {place: torch.zeros(place.inputs, dtype=torch.float64) for place in places}
    for start in range(0, len(encoded), backbone.batch_size):
        batch = encoded[start : start + backbone.batch_size]
        # Padded on the right: no token of a row sees what is there.
        ids = pad_sequence([torch.tensor(prompt + target) for prompt, target in batch], True, backbone.pad).to(device)
        shares = pad_sequence([_shares(len(prompt), len(target)) for prompt, target in batch], True).to(device)
        with ExitStack() as stack:
            for place in places:
                module = backbone.layers[place.layer].get_submodule(place.path)
                stack.enter_context(module.register_forward_pre_hook(partial(_add, sums[place], shares, place.path)))
            stack.enter_context(one_logit(model))
            model(input_ids=ids, use_cache=False)
        for prompt, target in batch:
            backbone.usage.read(len(prompt) + len(target))
    return {place.name: total / len(encoded) for place, total in sums.items()}


def _shares(prompt: int, target: int) -> Tensor:
    """What each token counts in the mean over a target."""
    return torch.tensor([0.0] * prompt + [1 / target] * target, dtype=torch.float64)


def _add(total: Tensor, shares: Tensor, path: str, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    """Add what a map reads to ``total``: each token by its share, rows together."""
    x = arguments[0]
    if x.dim() < 3:
        raise InputError(
            f"pieces of LoRA on {path!r}: the model gives it tokens without saying whose they are; name other modules"
        )
    normal = layer_norm(exact(x), x.shape[-1:]).flatten(1, -2)
    total += torch.einsum("rc,rci->i", shares.to(normal.dtype), normal).cpu()
