"""LoRA in peft's terms: its folders, and peft's own modules for training one user alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.adapters._lora import LoraSpec, Target, dropped
from lampbench.adapters._spec import DropoutKeys, LoneAdapter, State, master_dtype
from lampbench.backbone import Adapter, TransformersBackbone, Window
from lampbench.core import InputError

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# What changes the formula; a folder that turns one of them on is not a plain LoRA.
_VARIANTS = (
    "use_dora",
    "use_rslora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
)


def peft_config(spec: LoraSpec, backbone: TransformersBackbone) -> Any:
    """Peft's config of the same LoRA."""
    from peft import LoraConfig

    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type] # peft divides it; a fraction works
        lora_dropout=spec.dropout,
        target_modules=[place.name for place in spec.places(backbone)],
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=backbone.info.source.id,
    )


def save_folder(spec: LoraSpec, state: State, folder: Path, backbone: TransformersBackbone) -> None:
    """Write a folder that ``PeftModel.from_pretrained`` reads."""
    from safetensors.torch import save_file

    peft_config(spec, backbone).save_pretrained(str(folder))
    save_file({f"{_PREFIX}{name}": tensor.contiguous() for name, tensor in state.items()}, folder / _WEIGHTS)


def load_folder(spec: LoraSpec, folder: Path, backbone: TransformersBackbone) -> State:
    """Read a PEFT folder.

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
    _check_config(spec, config, folder)
    expected = spec.shapes(backbone)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            sides = (expected.get(name, "nothing"), found.get(name, "nothing"))
            raise InputError(f"{folder}: {name}: expected {sides[0]}, found {sides[1]}")
    return {name: tensors[name].to(master_dtype(backbone)) for name in expected}


def _check_config(spec: LoraSpec, config: Any, folder: Path) -> None:
    kind = config.get("peft_type") if isinstance(config, dict) else config
    if kind != "LORA":
        raise InputError(f"{folder}: expected a LoRA, found peft_type {kind!r}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    same = isinstance(alpha, (int, float)) and rank == spec.rank and alpha / rank == spec.alpha / spec.rank
    if not same:
        raise InputError(f"{folder}: expected rank {spec.rank} and alpha {spec.alpha}, found {rank!r} and {alpha!r}")
    used = [name for name in _VARIANTS if config.get(name)]
    if used or config.get("bias", "none") != "none":
        raise InputError(f"{folder}: only a plain LoRA can be loaded; this one sets {', '.join(used) or 'bias'}")


@contextmanager
def peft_lora(spec: LoraSpec, backbone: TransformersBackbone, start: State) -> Iterator[LoneAdapter]:
    """Peft's LoRA on the backbone, starting at ``start``; the backbone is itself again afterwards."""
    # peft looks into this module, which transformers 4.45 leaves for somebody else to import.
    import torch.distributed.tensor  # noqa: F401
    from peft import get_peft_model

    config = peft_config(spec, backbone)
    config.inference_mode = False
    # peft fills it in, and warns where another name was given.
    config.base_model_name_or_path = None
    places = spec.places(backbone)
    frozen = [(parameter, parameter.requires_grad) for parameter in backbone.model.parameters()]
    wrapped: Any = None
    try:
        wrapped = get_peft_model(backbone.model, config)
        lone = _PeftLora(spec, backbone.model, places)
        lone.begin(start)
        yield lone
    finally:
        if wrapped is not None:
            wrapped.unload()
        for parameter, requires_grad in frozen:
            parameter.requires_grad_(requires_grad)


class _PeftLora(LoneAdapter):
    """peft's modules, with dropout from the user's own masks."""

    def __init__(self, spec: LoraSpec, model: Any, places: list[Target]) -> None:
        self._modules: dict[Target, Any] = {place: model.get_submodule(place.name) for place in places}
        self._spec = spec
        for module in self._modules.values():
            module.lora_dropout["default"] = _KeyedDropout()

    @torch.no_grad()
    def begin(self, start: State) -> None:
        for name, parameter in self._named():
            parameter.copy_(start[name])

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self._named()]

    def adapter(self, dropout: DropoutKeys | None = None) -> Adapter:
        return _PeftAttached(self._modules, self._spec.dropout, dropout)

    def state(self) -> State:
        return {name: parameter.detach().cpu().clone() for name, parameter in self._named()}

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (f"{place.name}.{part}.weight", getattr(module, part)["default"].weight)
            for place, module in self._modules.items()
            for part in ("lora_A", "lora_B")
        ]


class _KeyedDropout(nn.Module):
    """Stands where peft has ``nn.Dropout``; drops what the user's keys say, and nothing without keys."""

    def __init__(self) -> None:
        super().__init__()
        self.drop: Any = None

    def forward(self, x: Tensor) -> Tensor:
        dropped_x: Tensor = x if self.drop is None else self.drop(x)
        return dropped_x


@dataclass(frozen=True)
class _PeftAttached:
    """peft's modules are in the model already; attaching only gives them the pass's dropout keys."""

    modules: Any
    dropout: float
    keys: DropoutKeys | None

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: Window) -> Iterator[None]:
        for target, module in self.modules.items():
            if self.dropout and self.keys is not None:
                module.lora_dropout["default"].drop = self._drop(target, window, self.keys)
        try:
            yield
        finally:
            for module in self.modules.values():
                module.lora_dropout["default"].drop = None

    def _drop(self, target: Target, window: Window, keys: DropoutKeys) -> Any:
        return lambda x: dropped(x, keys, target.number, window, self.dropout)
