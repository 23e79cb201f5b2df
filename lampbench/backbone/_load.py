"""A causal language model of transformers: described without its weights, then loaded."""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgspec

from lampbench.backbone._families import context_length, decoder_layers, examined
from lampbench.core import BackboneShape, InputError, cache_folder, digest, write_json
from lampbench.hub import ModelSource, find_model, find_tokenizer, gguf_header

DTYPES = ("float32", "bfloat16", "float16")
_LONGEST = 300
# Must be raised with every change to what ``examined`` finds.
_SHAPE_VERSION = 2
# GGUF files of these hold plain numbers.
_PLAIN = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """What identifies a backbone in a run's identity, known before its weights are loaded.

    Attributes:
        source: Where the files are and which revision.
        dtype: Of the frozen weights.
        device: Such as ``cpu`` or ``cuda``.
        shape: Layers, width, context length.
        tokenizer: Where another tokenizer than the model's own is, or None.
        quantize: How the linear maps of the layers are quantized when they are loaded, or None.
    """

    source: ModelSource
    dtype: str
    device: str
    shape: BackboneShape
    tokenizer: ModelSource | None = None
    quantize: str | None = None

    @property
    def quantization(self) -> str | None:
        """How the weights were or will be quantized, such as ``nf4``, or ``Q4_1`` of a GGUF file; None if not."""
        return self.quantize or self.source.quantization

    @property
    def id(self) -> str:
        """The name in rows."""
        return self.source.id

    @property
    def revision(self) -> str:
        """Identifies the files' content."""
        return self.source.revision


def describe_backbone(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    tokenizer: str | None = None,
    quantize: str | None = None,
    elsewhere: bool = False,
) -> BackboneInfo:
    """Resolve the names of a model and perhaps its tokenizer, dtype, device and quantization.

    ``auto`` is CUDA if there is a GPU, with bfloat16 there and float32 on the CPU. With ``elsewhere``
    it is loaded on other machines' GPUs.

    Raises:
        InputError: No such model, tokenizer, dtype or device; not a decoder-only language model, or one that cannot be
            used; or a quantization that does not work on the device, or not on this model.
    """
    source = find_model(model, revision, trust_remote_code)
    device, dtype = device_and_dtype("cuda" if elsewhere else device, dtype, elsewhere=elsewhere)
    shape = _known_shape(source)
    own = None if tokenizer is None else find_tokenizer(tokenizer, trust_remote_code)
    if quantize is not None:
        from lampbench.backbone._quantize import check_quantization

        if (known := quantization_of(source)) is not None:
            raise InputError(
                f"--quantize {quantize}: the weights of {source.name} are quantized already ({known}); leave "
                "--quantize out, or name a model in full precision"
            )
        check_quantization(quantize, None if elsewhere else device)
    return BackboneInfo(source, dtype, device, shape, own, quantize)


def device_and_dtype(device: str, dtype: str, *, elsewhere: bool = False) -> tuple[str, str]:
    """Both, with ``auto`` resolved; raises InputError if one is unknown or, without ``elsewhere``, not usable."""
    device = device if elsewhere else _device(device)
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: expected one of auto, {', '.join(DTYPES)}")
    return device, dtype


def quantization_of(source: ModelSource) -> str | None:
    """How a model's weights are quantized on disk, such as ``gptq`` or ``Q4_1``; None for plain numbers."""
    if source.quantization is not None:
        return None if source.quantization in _PLAIN else source.quantization
    found = getattr(model_config(source), "quantization_config", None)
    if found is None:
        return None
    return str(found.get("quant_method", "unknown") if isinstance(found, Mapping) else found.quant_method)


def mute_bitsandbytes() -> None:
    """When it is imported, as peft does, it logs which of its fast kernels are absent; none of them is used."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def load_model(info: BackboneInfo) -> tuple[Any, Any]:
    """The frozen model in evaluation mode, and its tokenizer.

    Raises:
        InputError: Files are missing or wrong.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    mute_bitsandbytes()
    source = info.source
    tokenizer = load_tokenizer(info)
    with one_line(f"--model {source.name}: cannot be loaded"):
        model, found = AutoModelForCausalLM.from_pretrained(
            source.location,
            use_safetensors=True,
            # Not ignored: what does not fit is named below.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **{dtype_keyword(): getattr(torch, info.dtype)},
            **_gguf_options(source),
            **source.load_options,
        )
    check_weights(info, model, found)
    check_vocabulary(info, model, tokenizer)
    if info.quantize is not None:
        from lampbench.backbone._quantize import quantize_layers

        quantize_layers(find_layers(model, info.shape.layers), info.quantize, info.device)
    return model.to(info.device).eval().requires_grad_(False), tokenizer


def load_skeleton(info: BackboneInfo) -> tuple[Any, Any]:
    """The model's modules with shapes and no weights, and its tokenizer: for counting, not for running.

    Raises:
        InputError: Files are missing or wrong.
    """
    tokenizer = load_tokenizer(info)
    return _skeleton(info.source), tokenizer


def load_tokenizer(info: BackboneInfo) -> Any:
    """The tokenizer alone; raises InputError if there is none, or it has no EOS token."""
    source = info.tokenizer or info.source
    what = f"--tokenizer {source.name}" if info.tokenizer else f"--model {source.name}"
    with one_line(f"{what}: no usable tokenizer (tokenizer.json)"):
        tokenizer = _parsed_tokenizer(source) if source.file else _tokenizer(source)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{what}: its tokenizer has no EOS token; answers would never end")
    return tokenizer


def model_config(source: ModelSource) -> Any:
    """The model's config; whatever transformers raises."""
    return _parsed_config(source) if source.file else _config(source)


def _config(source: ModelSource) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source.location, **source.load_options)
    if source.file:
        # transformers 4.45 does not look, and would draw a head at random.
        config.tie_word_embeddings = gguf_header(source).ties_head
    return config


def _tokenizer(source: ModelSource) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        source.location,
        # Said explicitly because the default of this switch changed between versions.
        clean_up_tokenization_spaces=False,
        # What users write is text: "</s>" in it is four characters, and ends nothing.
        split_special_tokens=True,
        **source.load_options,
    )
    template = Path(source.location) / "chat_template.jinja"
    if source.local and not tokenizer.chat_template and template.is_file():
        # Earlier versions of transformers look for it in tokenizer_config.json alone.
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    if source.file:
        # transformers 4.45 takes the one for the other.
        found = gguf_header(source).metadata
        for name in ("bos", "eos"):
            number = found.get(f"tokenizer.ggml.{name}_token_id")
            if isinstance(number, int) and number < len(tokenizer):
                setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(number))
    return tokenizer


# transformers takes seconds to read what a GGUF file holds beside its weights; of one content that is always the same.
_parsed_config = lru_cache(maxsize=4)(_config)
_parsed_tokenizer = lru_cache(maxsize=4)(_tokenizer)


def _gguf_options(source: ModelSource) -> dict[str, Any]:
    """What loading a GGUF file needs beside its name: weights in full, and the config that was read before."""
    if source.file is None:
        return {}
    from tqdm import tqdm
    from transformers import modeling_gguf_pytorch_utils as unpacking

    # transformers' own switch does not reach this bar.
    unpacking.tqdm = partial(tqdm, disable=True)
    options: dict[str, Any] = {"config": model_config(source)}
    try:
        from transformers import GgufConfig
    except ImportError:  # a version that always unpacks
        return options
    return {**options, "quantization_config": GgufConfig(dequantize=True)}


def end_tokens(info: BackboneInfo) -> list[int]:
    """Token ids that end a turn by the model's generation config, or by its config where it has none."""
    from transformers import GenerationConfig

    source, found = info.source, None
    if source.file is None:
        with suppress(OSError, ValueError):
            found = GenerationConfig.from_pretrained(source.location, **source.load_options).eos_token_id
    if found is None:
        with one_line(f"--model {source.name}: its config cannot be read"):
            found = model_config(source).get_text_config().eos_token_id
    return [] if found is None else found if isinstance(found, list) else [found]


def find_layers(model: Any, count: int) -> Any:
    """The decoder's list of layers, found by its length, not by the model's type.

    Raises:
        InputError: No such list.
    """
    layers = decoder_layers(model, count)
    if layers is None:
        raise InputError(f"{type(model).__name__} has no list of {count} decoder layers; expected a decoder-only model")
    return layers


def _skeleton(source: ModelSource) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    config = model_config(source)
    with one_line(f"--model {source.name}: cannot be built"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=source.trust_remote_code)
    return model.eval().requires_grad_(False)


def _known_shape(source: ModelSource) -> BackboneShape:
    """What is known of the model without its weights; kept in the cache, because finding it takes seconds.

    What code that comes with a model finds may depend on anything, so of such a model nothing is kept.
    """
    if source.trust_remote_code:
        return _found_shape(source)
    named = [_SHAPE_VERSION, importlib.metadata.version("transformers"), source.revision, source.file]
    path = cache_folder() / "shapes" / f"{digest(named)}.json"
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=BackboneShape)
    shape = _found_shape(source)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(shape))
    return shape


def _found_shape(source: ModelSource) -> BackboneShape:
    return examined(_shape(source), _skeleton(source), source.name)


def _shape(source: ModelSource) -> BackboneShape:
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    not_a_decoder = f"--model {source.name}: its config is not a decoder-only language model's"
    if source.file:
        version = importlib.metadata.version("transformers")
        not_a_decoder = f"--model {source.name}: transformers {version} cannot read this GGUF file"
    with one_line(not_a_decoder):
        config = model_config(source)
        text = config.get_text_config()
        sizes = text.num_hidden_layers, text.hidden_size, context_length(text)
    # The kinds that fill in masks are encoders, though transformers would load them as language models, too.
    if config.is_encoder_decoder or (type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_decoder):
        raise InputError(f"{not_a_decoder}: {config.model_type} has an encoder")
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise InputError(
            f"--model {source.name}: its config has {sizes[0]!r} layers of width {sizes[1]!r} and a context of "
            f"{sizes[2]!r} tokens; expected whole numbers above 0"
        )
    return BackboneShape(*sizes)


def check_weights(info: BackboneInfo, model: Any, found: Mapping[str, Any]) -> None:
    """Raise InputError for weights that transformers would silently draw at random or leave out."""
    location, whose = info.source.name, "are the weights and config.json of one model?"
    for name, stored, wanted in sorted(found["mismatched_keys"], key=str):
        raise InputError(
            f"--model {location}: {name} is {list(stored)} in the weights, {list(wanted)} by config.json; {whose}"
        )
    missing = sorted(found["missing_keys"])
    head = _name_of(model, model.get_output_embeddings())
    if missing == [f"{head}.weight"]:
        raise InputError(
            f"--model {location}: it has no language model head ({missing[0]}), only the layers before it; expected a "
            "model that was saved for causal language modelling"
        )
    if missing:
        raise InputError(f"--model {location}: {len(missing)} weights are missing, the first is {missing[0]}; {whose}")
    layers = find_layers(model, info.shape.layers)
    prefix = _name_of(model, layers)
    for name in sorted(found["unexpected_keys"]):
        number = name.removeprefix(f"{prefix}.").partition(".")[0]
        if name.startswith(f"{prefix}.") and number.isdecimal() and int(number) >= len(layers):
            raise InputError(f"--model {location}: {name} is of no layer, config.json has {len(layers)}; {whose}")


def check_vocabulary(info: BackboneInfo, model: Any, tokenizer: Any) -> None:
    """Raise InputError if a text could have a token that the weights do not have."""
    rows = model.get_input_embeddings().weight.shape[0]
    # A [PAD] that was added later often has no row, nor what transformers adds to a GGUF file; no text holds these.
    template = str(tokenizer.chat_template or "")
    added = tokenizer.added_tokens_decoder.items()
    unwritten = {number for number, token in added if token.special and token.content not in template}
    unwritten = (unwritten | set(tokenizer.all_special_ids)) - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    highest = max(set(tokenizer.get_vocab().values()) - unwritten)
    if highest >= rows and info.tokenizer:
        raise InputError(
            f"--tokenizer {info.tokenizer.name}: it has token ids up to {highest}, the weights of {info.source.name} "
            f"those below {rows}; is it this model's?"
        )
    if highest >= rows:
        raise InputError(
            f"--model {info.source.name}: its tokenizer has token ids up to {highest}, its weights those below {rows}; "
            "are both of one model?"
        )


def _name_of(model: Any, part: Any) -> str | None:
    return next((name for name, module in model.named_modules() if module is part), None)


def _device(name: str) -> str:
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    with one_line(f"--device {name}: not usable here"):
        torch.empty(1, device=name).item()
    return name


def _may_have_gpu() -> bool:
    """Whether torch, whose import takes seconds, is worth asking: on Linux there is no GPU without a driver."""
    if "torch" in sys.modules or not sys.platform.startswith("linux") or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def dtype_keyword() -> str:
    # transformers 5 renamed torch_dtype.
    return "dtype" if int(importlib.metadata.version("transformers").split(".")[0]) >= 5 else "torch_dtype"


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Raise errors of the block as an InputError of one line that begins with ``what``."""
    try:
        yield
    except Exception as error:  # transformers and torch raise many kinds for wrong files and absent devices
        raise InputError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """An error of transformers or torch in one line."""
    if "trust_remote_code" in str(error):
        return "it needs code of its own, which runs only with --trust-remote-code"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (f"{first} {rest[0]}" if first.endswith(":") and rest else first)[:_LONGEST]
