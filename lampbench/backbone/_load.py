"""A causal language model of transformers: described without its weights, then loaded."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampbench.core import BackboneShape, InputError
from lampbench.hub import ModelSource, find_model

DTYPES = ("float32", "bfloat16", "float16")
_LONGEST = 300


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

    @property
    def id(self) -> str:
        """The name in rows."""
        return self.source.id

    @property
    def revision(self) -> str:
        """What names the files' content."""
        return self.source.revision


def describe_backbone(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    elsewhere: bool = False,
) -> BackboneInfo:
    """Resolve a model's name, dtype and device.

    ``auto`` is CUDA if there is a GPU, with bfloat16 there and float32 on the CPU. With ``elsewhere``
    it is loaded on other machines' GPUs.

    Raises:
        InputError: No such model, dtype or device; or not a decoder-only language model.
    """
    source = find_model(model, revision, trust_remote_code)
    device, dtype = device_and_dtype("cuda" if elsewhere else device, dtype, elsewhere=elsewhere)
    return BackboneInfo(source, dtype, device, _shape(source))


def device_and_dtype(device: str, dtype: str, *, elsewhere: bool = False) -> tuple[str, str]:
    """Both, with ``auto`` resolved; raises InputError if one is unknown or, without ``elsewhere``, not usable."""
    device = device if elsewhere else _device(device)
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
    with _one_line(f"--model {location}: cannot be loaded"):
        model, found = AutoModelForCausalLM.from_pretrained(
            location,
            use_safetensors=True,
            # Not ignored: what does not fit is named below.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **{_dtype_keyword(): getattr(torch, info.dtype)},
            **options,
        )
    _check_weights(info, model, found)
    _check_vocabulary(location, model, tokenizer)
    return model.to(info.device).eval().requires_grad_(False), tokenizer


def load_skeleton(info: BackboneInfo) -> tuple[Any, Any]:
    """The model's modules with shapes and no weights, and its tokenizer: for counting, not for running.

    Raises:
        InputError: Files are missing or wrong.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer(info)
    with _one_line(f"--model {info.source.location}: cannot be built"):
        config = AutoConfig.from_pretrained(info.source.location, **info.source.load_options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=info.source.trust_remote_code)
    return model.eval().requires_grad_(False), tokenizer


def load_tokenizer(info: BackboneInfo) -> Any:
    """The tokenizer alone; raises InputError if there is none, or it has no EOS token."""
    from transformers import AutoTokenizer

    with _one_line(f"--model {info.source.location}: no usable tokenizer (tokenizer.json)"):
        tokenizer = AutoTokenizer.from_pretrained(
            info.source.location,
            # Said explicitly because the default of this switch changed between versions.
            clean_up_tokenization_spaces=False,
            # What users write is text: "</s>" in it is four characters, and ends nothing.
            split_special_tokens=True,
            **info.source.load_options,
        )
    template = Path(info.source.location) / "chat_template.jinja"
    if info.source.local and not tokenizer.chat_template and template.is_file():
        # Earlier versions of transformers look for it in tokenizer_config.json alone.
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    if tokenizer.eos_token_id is None:
        raise InputError(f"--model {info.source.location}: its tokenizer has no EOS token; answers would never end")
    return tokenizer


def end_tokens(info: BackboneInfo) -> list[int]:
    """Token ids that end a turn by the model's generation config, or by its config where it has none."""
    from transformers import AutoConfig, GenerationConfig

    source = info.source
    try:
        found = GenerationConfig.from_pretrained(source.location, **source.load_options).eos_token_id
    except (OSError, ValueError):
        with _one_line(f"--model {source.location}: its config cannot be read"):
            found = AutoConfig.from_pretrained(source.location, **source.load_options).get_text_config().eos_token_id
    return [] if found is None else found if isinstance(found, list) else [found]


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
    from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig

    not_a_decoder = f"--model {source.location}: its config is not a decoder-only language model's"
    with _one_line(not_a_decoder):
        config = AutoConfig.from_pretrained(source.location, **source.load_options)
        text = config.get_text_config()
        sizes = text.num_hidden_layers, text.hidden_size, text.max_position_embeddings
    # The kinds that fill in masks are encoders, though transformers would load them as language models, too.
    if config.is_encoder_decoder or (type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_decoder):
        raise InputError(f"{not_a_decoder}: {config.model_type} has an encoder")
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise InputError(
            f"--model {source.location}: its config has {sizes[0]!r} layers of width {sizes[1]!r} and a context of "
            f"{sizes[2]!r} tokens; expected whole numbers above 0"
        )
    return BackboneShape(*sizes)


def _check_weights(info: BackboneInfo, model: Any, found: Mapping[str, Any]) -> None:
    """Raise InputError for what transformers would draw at random, or leave out, without a word."""
    location, whose = info.source.location, "are the weights and config.json of one model?"
    for name, stored, wanted in sorted(found["mismatched_keys"], key=str):
        raise InputError(
            f"--model {location}: {name} is {list(stored)} in the weights, {list(wanted)} by config.json; {whose}"
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputError(f"--model {location}: {len(missing)} weights are missing, the first is {missing[0]}; {whose}")
    layers = find_layers(model, info.shape.layers)
    prefix = next(name for name, module in model.named_modules() if module is layers)
    for name in sorted(found["unexpected_keys"]):
        number = name.removeprefix(f"{prefix}.").partition(".")[0]
        if name.startswith(f"{prefix}.") and number.isdecimal() and int(number) >= len(layers):
            raise InputError(f"--model {location}: {name} is of no layer, config.json has {len(layers)}; {whose}")


def _check_vocabulary(location: str, model: Any, tokenizer: Any) -> None:
    """Raise InputError if a text could have a token that the weights do not have."""
    rows = model.get_input_embeddings().weight.shape[0]
    # A [PAD] that was added later often has no row; no text holds it.
    unwritten = set(tokenizer.all_special_ids) - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    highest = max(set(tokenizer.get_vocab().values()) - unwritten)
    if highest >= rows:
        raise InputError(
            f"--model {location}: its tokenizer has token ids up to {highest}, its weights those below {rows}; are "
            "both of one model?"
        )


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    with _one_line(f"--device {name}: not usable here"):
        torch.empty(1, device=name).item()
    return name


def _dtype_keyword() -> str:
    # transformers 5 renamed torch_dtype.
    return "dtype" if int(importlib.metadata.version("transformers").split(".")[0]) >= 5 else "torch_dtype"


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Raise errors of the block as an InputError of one line that begins with ``what``."""
    try:
        yield
    except Exception as error:  # transformers and torch raise many kinds for wrong files and absent devices
        raise InputError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """An error of transformers or torch in one line."""
    if "trust_remote_code" in str(error):
        return "it needs code of its own, which runs only with --trust-remote-code"
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (f"{first} {rest[0]}" if first.endswith(":") and rest else first)[:_LONGEST]
