"""A causal language model of transformers: described without its weights, then loaded."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

from lampbench.core import BackboneShape, InputError
from lampbench.hub import ModelSource, find_model

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """What names a backbone in a run's identity, known before its weights are loaded.

    Attributes:
        source: Where the files are and which revision.
        dtype: Of the frozen weights.
        device: Such as ``cpu`` or ``cuda``.
        shape: Layers, width, context length.
    """

    source: ModelSource
    dtype: str
    device: str
    shape: BackboneShape


def describe_backbone(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> BackboneInfo:
    """Resolve a model's name, dtype and device.

    ``auto`` is CUDA where there is a GPU, with bfloat16 there and float32 elsewhere.

    Raises:
        InputError: No such model, dtype or device; or not a decoder-only language model.
    """
    source = find_model(model, revision, trust_remote_code)
    device, dtype = device_and_dtype(device, dtype)
    return BackboneInfo(source, dtype, device, _shape(source))


def device_and_dtype(device: str, dtype: str) -> tuple[str, str]:
    """Both, with ``auto`` resolved; raises InputError where one is unknown or not usable here."""
    device = _device(device)
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: expected one of auto, {', '.join(DTYPES)}")
    return device, dtype


def load_model(info: BackboneInfo) -> tuple[Any, Any]:
    """The frozen model in evaluation mode, and its tokenizer.

    Raises:
        InputError: Files are missing or wrong.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    location, options = info.source.location, info.source.load_options
    tokenizer = load_tokenizer(info)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            location, use_safetensors=True, **{_dtype_keyword(): getattr(torch, info.dtype)}, **options
        )
    except Exception as error:  # transformers raises many kinds for wrong files
        raise InputError(f"--model {location}: cannot be loaded: {_first_line(error)}") from error
    return model.to(info.device).eval().requires_grad_(False), tokenizer


def load_skeleton(info: BackboneInfo) -> tuple[Any, Any]:
    """The model's modules with shapes and no weights, and its tokenizer: for counting, not for running.

    Raises:
        InputError: Files are missing or wrong.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer(info)
    try:
        config = AutoConfig.from_pretrained(info.source.location, **info.source.load_options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=info.source.trust_remote_code)
    except Exception as error:  # transformers raises many kinds for wrong files
        raise InputError(f"--model {info.source.location}: cannot be built: {_first_line(error)}") from error
    return model.eval().requires_grad_(False), tokenizer


def load_tokenizer(info: BackboneInfo) -> Any:
    """The tokenizer alone; raises InputError where there is none, or it has no EOS token."""
    from transformers import AutoTokenizer

    try:
        # Said explicitly because the default of this switch changed between versions.
        tokenizer = AutoTokenizer.from_pretrained(
            info.source.location, clean_up_tokenization_spaces=False, **info.source.load_options
        )
    except Exception as error:
        raise InputError(f"--model {info.source.location}: no usable tokenizer: {_first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise InputError(f"--model {info.source.location}: its tokenizer has no EOS token; answers would never end")
    return tokenizer


def find_layers(model: Any, count: int) -> Any:
    """The decoder's list of layers, found by its length, not by the model's type.

    Raises:
        InputError: No module list of that length.
    """
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(f"{type(model).__name__} has no list of {count} decoder layers; expected a decoder-only model")


def _shape(source: ModelSource) -> BackboneShape:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.location, **source.load_options)
        text = config.get_text_config()
        return BackboneShape(text.num_hidden_layers, text.hidden_size, text.max_position_embeddings)
    except (AttributeError, OSError, ValueError) as error:
        raise InputError(
            f"--model {source.location}: its config is not a decoder-only language model's: {_first_line(error)}"
        ) from None


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: not usable here: {_first_line(error)}") from None
    return name


def _dtype_keyword() -> str:
    # transformers 5 renamed torch_dtype.
    return "dtype" if int(importlib.metadata.version("transformers").split(".")[0]) >= 5 else "torch_dtype"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
