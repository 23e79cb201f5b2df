"""What can be found wrong with a model before its weights are read."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lampbench.backbone._load import (
    BackboneInfo,
    check_vocabulary,
    check_weights,
    dtype_keyword,
    find_layers,
    load_skeleton,
    model_config,
    one_line,
    quantization_of,
)
from lampbench.core import InputError
from lampbench.hub import ModelSource, indexed_files

_POINTER = b"version https://git-lfs"


def checked_skeleton(info: BackboneInfo) -> tuple[Any, Any]:
    """The model's modules without weights, and its tokenizer, after every check that needs no weights.

    Of weights only the heads of safetensors files are read: names, shapes and sizes.

    Raises:
        InputError: Loading would fail, or weights would be drawn at random; a token or end token has no row in the
            weights; packages that the model's quantization needs are missing; or it cannot be quantized as asked.
    """
    _check_packages(info)
    model, tokenizer = load_skeleton(info)
    layers = find_layers(model, info.shape.layers)
    if info.quantize is not None:
        from lampbench.backbone._quantize import check_quantizable

        check_quantizable(layers, info.source.name, info.quantize)
    # The names of packed weights are not those of the plain modules.
    if info.source.file is None and quantization_of(info.source) is None:
        shapes = _stored_shapes(info.source)
        if shapes:
            check_weights(info, model, _compared(info, model, shapes))
    check_vocabulary(info, model, tokenizer)
    _take_generation_config(info.source, model)
    return model, tokenizer


def _check_packages(info: BackboneInfo) -> None:
    """Raise InputError if weights that are quantized on disk need a package or device that is missing."""
    if info.source.file is not None or (method := quantization_of(info.source)) is None:
        return
    from transformers.quantizers import AutoHfQuantizer

    with one_line(f"--model {info.source.name}: its weights are quantized ({method})"):
        quantizer = AutoHfQuantizer.from_config(model_config(info.source).quantization_config, pre_quantized=True)
        quantizer.validate_environment(device_map=None, from_tf=False, from_flax=False)


def _stored_shapes(source: ModelSource) -> dict[str, tuple[int, ...]]:
    """The shapes of all stored tensors by name; none if the files are not on this machine yet.

    Raises:
        InputError: A file is a Git LFS pointer, is cut, or is no safetensors file.
    """
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(source):
        with path.open("rb") as stream:
            start = stream.read(len(_POINTER))
        if start == _POINTER:
            raise InputError(
                f"{path}: a Git LFS pointer of {path.stat().st_size} bytes, expected weights; fetch them by git lfs "
                "pull"
            )
        with one_line(f"--model {source.name}: {path.name} cannot be loaded"), safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def _weight_files(source: ModelSource) -> list[Path]:
    """The files that transformers will read, as far as they are here: one, or those of an index."""
    if source.local:
        folder = Path(source.location)
    else:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(source.location, "config.json", revision=source.revision)
        if not isinstance(found, str):
            return []
        folder = Path(found).parent
    one, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if one.exists():
        return [one]
    if not index.exists():
        return []
    return [folder / name for name in sorted(indexed_files(index)) if (folder / name).exists()]


def _compared(info: BackboneInfo, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any]:
    """What loading tensors of these shapes would report: missing, unexpected and mismatched names.

    transformers itself is asked, because it renames and joins tensors on the way.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    stored = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    options: dict[str, Any] = {
        "config": model.config,
        "state_dict": stored,
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
        dtype_keyword(): getattr(torch, info.dtype),
    }
    with one_line(f"--model {info.source.name}: its weights do not fit its config.json"):
        if int(importlib.metadata.version("transformers").split(".")[0]) >= 5:
            _, found = type(model).from_pretrained(None, device_map={"": "meta"}, **options)
            return dict(found)
        with torch.device("meta"):
            _, found = type(model).from_pretrained(None, **options)
    # Without storage all tensors look tied to each other, so that none seems to be missing.
    return {**found, "missing_keys": _missing(model, shapes)}


def _missing(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the model's tensors that are not stored, with or without the prefix of the decoder."""
    prefix = f"{model.base_model_prefix}."
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    stored = {*shapes, *(f"{prefix}{name}" for name in shapes), *(name.removeprefix(prefix) for name in shapes)}
    return [name for name in model.state_dict() if name not in stored | tied]


def _take_generation_config(source: ModelSource, model: Any) -> None:
    """Give the model the generation config that comes with it, as loading would."""
    from transformers import GenerationConfig

    if source.file is None and model.can_generate():
        with one_line(f"--model {source.name}: its generation_config.json"):
            try:
                model.generation_config = GenerationConfig.from_pretrained(source.location, **source.load_options)
            except OSError:  # there may be none
                if (Path(source.location) / "generation_config.json").exists():
                    raise
