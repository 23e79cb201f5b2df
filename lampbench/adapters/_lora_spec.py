"""LoRA as a spec: which maps it adapts, and its PEFT folders."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampbench.adapters._lora import AdaptedMap, LoraBank, LoraWeights
from lampbench.adapters._spec import AdapterSpec, SoloAdapter, State, master_dtype
from lampbench.backbone import is_linear, linear_maps, projections, shared_layers
from lampbench.core import BackboneShape, InputError, later

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lampbench.backbone import TransformersBackbone
else:
    torch, nn = later("torch"), later("torch.nn")

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# What changes the formula; a folder that turns one of them on is not a plain LoRA.
_VARIANTS = (
    "use_dora", "use_rslora", "lora_bias", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern"
)  # fmt: skip


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

    def places(self, backbone: TransformersBackbone) -> list[AdaptedMap]:
        """The adapted modules, from the first layer on.

        Raises:
            InputError: A name of ``targets`` is not a linear map of the model's decoder layers, or several layers share
                its weights.
        """
        prefix = next(name for name, module in backbone.model.named_modules() if module is backbone.layers)
        found: list[AdaptedMap] = []
        for number, layer in enumerate(backbone.layers):
            if self.layers is not None and number not in self.layers:
                continue
            for path, module in layer.named_modules():
                if path.rpartition(".")[2] in self.targets and is_linear(module):
                    found.append(_adapted(module, number, path, f"{prefix}.{number}.{path}", len(found)))
        absent = set(self.layers or ()) - set(range(len(backbone.layers)))
        if absent:
            raise InputError(f"LoRA on layer {min(absent)}: the backbone has layers 0 to {len(backbone.layers) - 1}")
        shared = [name for name in self.targets if shared_layers(backbone.layers, name)]
        _check_targets(self.targets, linear_maps(backbone.layers), shared, type(backbone.model).__name__)
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

    def neutral(self, backbone: TransformersBackbone) -> State:
        """As untrained: B is zero."""
        return self.fresh(backbone, 0)

    def shapes(self, backbone: TransformersBackbone) -> dict[str, tuple[int, int]]:
        """Names and shapes of one user's parameters."""
        return {name: shape for place in self.places(backbone) for name, shape in place.shapes(self.rank).items()}

    def bank(self, backbone: TransformersBackbone, slots: int) -> LoraBank:
        """Stacked A and B."""
        return LoraBank(
            self.places(backbone),
            slots=slots, rank=self.rank, scale=self.alpha / self.rank, dropout=self.dropout,
            dtype=master_dtype(backbone), device=backbone.device,
        )  # fmt: skip

    @contextmanager
    def alone(self, backbone: TransformersBackbone, start: State) -> Iterator[SoloAdapter]:
        """A LoRA of peft itself, wrapped around the backbone while it trains; afterwards the backbone is restored."""
        # peft looks into this module, which transformers 4.45 leaves for others to import.
        import torch.distributed.tensor  # noqa: F401
        from peft import get_peft_model

        from lampbench.adapters._peft_lora import PeftLora

        config = self._peft_config(backbone)
        config.inference_mode = False
        # peft fills it in, and warns if another name was given.
        config.base_model_name_or_path = None
        # Found before peft puts its own modules into their places.
        places = self.places(backbone)
        frozen = [(parameter, parameter.requires_grad) for parameter in backbone.model.parameters()]
        wrapped: Any = None
        try:
            wrapped = get_peft_model(backbone.model, config)
            yield PeftLora(places, self.dropout, backbone.model, start)
        finally:
            if wrapped is not None:
                wrapped.unload()
            for parameter, requires_grad in frozen:
                parameter.requires_grad_(requires_grad)

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

    def mergeable(self, backbone: TransformersBackbone) -> bool:
        """Whether the targets have plain weights, to which something can be added; quantized ones have not."""
        weights = [backbone.model.get_submodule(place.name).weight for place in self.places(backbone)]
        return all(isinstance(weight, nn.Parameter) and weight.is_floating_point() for weight in weights)

    def changes(self, backbone: TransformersBackbone, state: State) -> Iterator[tuple[str, Tensor]]:
        """What merging adds to the backbone's weights, one parameter at a time: its name, and a float32 matrix."""
        for place in self.places(backbone):
            change = (self.alpha / self.rank) * (state[place.b] @ state[place.a])
            yield f"{place.name}.weight", change.mT if place.transposed else change

    def save(self, state: State, folder: Path, backbone: TransformersBackbone) -> None:
        """Write a PEFT folder, which ``PeftModel.from_pretrained`` reads."""
        from safetensors.torch import save_file

        self._peft_config(backbone).save_pretrained(str(folder))
        save_file({f"{_PREFIX}{name}": tensor.contiguous() for name, tensor in state.items()}, folder / _WEIGHTS)

    def load(self, folder: Path, backbone: TransformersBackbone) -> State:
        """Read a PEFT folder of such a LoRA, by any program.

        Raises:
            InputError: Files are missing, it is another kind of adapter, or its scale or shapes differ.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
            tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(folder / _WEIGHTS).items()}
        except (OSError, ValueError, RecursionError, SafetensorError) as error:
            raise InputError(f"{folder}: not a PEFT folder ({_CONFIG}, {_WEIGHTS}): {error}") from error
        _check_config(self, config, folder, any(place.transposed for place in self.places(backbone)))
        expected = self.shapes(backbone)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                sides = (expected.get(name, "nothing"), found.get(name, "nothing"))
                raise InputError(f"{folder}: {name}: expected {sides[0]}, found {sides[1]}")
        return {name: tensors[name].to(master_dtype(backbone)) for name in expected}

    def _peft_config(self, backbone: TransformersBackbone) -> Any:
        """Peft's config of the same LoRA."""
        from peft import LoraConfig

        places = self.places(backbone)
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type] # peft divides it; a fraction works
            lora_dropout=self.dropout,
            target_modules=[place.name for place in places],
            fan_in_fan_out=any(place.transposed for place in places),
            bias="none",
            task_type="CAUSAL_LM",
            inference_mode=True,
            base_model_name_or_path=backbone.info.source.id,
        )


def family_targets(targets: tuple[str, ...], default: tuple[str, ...], shape: BackboneShape) -> tuple[str, ...]:
    """``targets`` as they are, or if they are the ``default``, what the backbone's family has in their place.

    Raises:
        InputError: The backbone has no such linear maps, or several of its layers share their weights.
    """
    if not shape.linear_maps:
        return targets
    if targets == default:
        targets = projections(targets, shape.linear_maps)
    _check_targets(targets, shape.linear_maps, shape.shared_maps, "the model")
    return targets


def _check_targets(targets: Sequence[str], maps: Sequence[str], shared: Sequence[str], model: str) -> None:
    for target in targets:
        if target not in maps:
            known = f"it has {', '.join(sorted(maps))}" if maps else "it has none"
            raise InputError(f"LoRA on {target!r}: {model} has no such linear map in its decoder layers; {known}")
        if target in shared:
            raise InputError(
                f"LoRA on {target!r}: several layers of {model} share its weights, so that no layer can have a LoRA "
                "of its own; name other modules, or use a method that edits hidden states"
            )


def _adapted(module: Any, layer: int, path: str, name: str, number: int) -> AdaptedMap:
    if isinstance(module, nn.Linear):
        return AdaptedMap(layer, path, name, number, module.in_features, module.out_features)
    inputs, outputs = module.weight.shape
    return AdaptedMap(layer, path, name, number, inputs, outputs, transposed=True)


def _check_config(spec: LoraSpec, config: Any, folder: Path, transposed: bool) -> None:
    kind = config.get("peft_type") if isinstance(config, dict) else config
    if kind != "LORA":
        raise InputError(f"{folder}: expected a LoRA, found peft_type {kind!r}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    same = isinstance(alpha, (int, float)) and rank == spec.rank and alpha / rank == spec.alpha / spec.rank
    if not same:
        raise InputError(f"{folder}: expected rank {spec.rank} and alpha {spec.alpha}, found {rank!r} and {alpha!r}")
    # What the adapted weights need is no variant.
    used = [name for name in _VARIANTS if config.get(name) and not (transposed and name == "fan_in_fan_out")]
    if used or config.get("bias", "none") != "none":
        raise InputError(f"{folder}: only a plain LoRA can be loaded; this one sets {', '.join(used) or 'bias'}")
