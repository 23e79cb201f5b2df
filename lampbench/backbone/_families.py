"""What a family of models can be used for, and how its parts are called: known before any weights are loaded."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lampbench.backbone._encode import MAX_SEQUENCE
from lampbench.core import BackboneShape, InputError

if TYPE_CHECKING:
    from torch import nn

# Llama's names of the maps that make queries, keys and values, and what other families have in their place. Latent
# attention makes keys and values together, from a narrow vector; some families have one map for all three.
_OTHER_NAMES = {
    "q_proj": ("q_b_proj", "qkv_proj", "query_key_value", "Wqkv", "c_attn", "query"),
    "k_proj": ("kv_b_proj", "kv_proj", "qkv_proj", "query_key_value", "Wqkv", "c_attn", "key"),
    "v_proj": ("kv_b_proj", "kv_proj", "qkv_proj", "query_key_value", "Wqkv", "c_attn", "value"),
}

# The map that mixes the outputs of a layer's attention heads, in every family that keeps them side by side before it.
_MIXES_HEADS = re.compile(r"(?:self_attn|self_attention|attention|attn)\.(?:o_proj|out_proj|c_proj|dense|wo)")

# Names in configs of the number of hidden states of a token: Gemma 3n's alternating updates, and hyper-connections.
_STREAMS = ("altup_num_inputs", "hc_mult", "hc_count")

# Families that take past_key_values, and keep a part of what they have read in their modules all the same.
_READ_INTO_MODULES = ("recurrent_gemma",)


def examined(shape: BackboneShape, model: Any, location: str) -> BackboneShape:
    """``shape`` with what the modules of ``model`` say, which may be on the meta device.

    Raises:
        InputError: The model cannot be used: it keeps no keys and values, keeps a part of what it reads elsewhere, or
            has no list of decoder layers.
    """
    name = type(model).__name__
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise InputError(
            f"--model {location}: {name} keeps no keys and values of what it has read (its forward has no "
            "past_key_values); expected a decoder with attention, such as Llama"
        )
    if model.config.model_type in _READ_INTO_MODULES:
        raise InputError(
            f"--model {location}: {name} keeps a part of what it has read in its modules, where texts of a batch "
            "cannot be told apart later; expected a decoder with attention, such as Llama"
        )
    layers = decoder_layers(model, shape.layers)
    if layers is None:
        raise InputError(f"--model {location}: {name} has no list of decoder layers; expected a decoder-only model")
    maps, text = linear_maps(layers), model.config.get_text_config()
    return replace(
        shape,
        layers=len(layers),
        linear_maps=tuple(maps),
        shared_maps=tuple(name for name in maps if shared_layers(layers, name)),
        heads=sum(output.heads for output in attention_outputs(model, layers).values()),
        streams=next((n for name in _STREAMS if isinstance(n := getattr(text, name, None), int)), 1),
    )


def decoder_layers(model: Any, count: int) -> nn.ModuleList | None:
    """The decoder's list of ``count`` layers; if no list is so long, the one that the decoder calls its layers."""
    from torch import nn

    own = getattr(model.get_decoder(), "layers", None) if hasattr(model, "get_decoder") else None
    if isinstance(own, nn.ModuleList) and len(own) == count:
        return own
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    # A config may count a layer's parts: LongCat's layers have two attentions each.
    return own if isinstance(own, nn.ModuleList) and len(own) else None


def linear_maps(layers: nn.ModuleList) -> list[str]:
    """Last names of the linear maps in decoder layers, in order of appearance."""
    names = (path.rpartition(".")[2] for layer in layers for path, m in layer.named_modules() if is_linear(m))
    return list(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class AttentionOutput:
    """Where the outputs of one layer's attention heads can be edited.

    Attributes:
        path: Name, inside the layer, of the linear map whose input they are, side by side.
        heads: How many.
        width: Of one of them.
    """

    path: str
    heads: int
    width: int


def attention_outputs(model: Any, layers: nn.ModuleList) -> dict[int, AttentionOutput]:
    """Layer number -> its attention heads' outputs, for the layers whose heads can be told apart."""
    heads = getattr(model.config.get_text_config(), "num_attention_heads", None)
    found: dict[int, AttentionOutput] = {}
    for number, layer in enumerate(layers):
        maps = [(path, own) for path, own in layer.named_modules() if _MIXES_HEADS.fullmatch(path) and is_linear(own)]
        if len(maps) != 1 or not isinstance(heads, int):
            continue
        path, own = maps[0]
        inputs = own.in_features if hasattr(own, "in_features") else own.weight.shape[0]
        if inputs % heads == 0:
            found[number] = AttentionOutput(path, heads, inputs // heads)
    return found


def is_linear(module: nn.Module) -> bool:
    """Whether ``module`` is a linear map: torch's, or the transposed one of GPT-2."""
    from torch import nn

    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def shared_layers(layers: nn.ModuleList, name: str) -> tuple[int, int] | None:
    """Two layers whose linear maps called ``name`` have the same weights, or None."""
    owners: dict[int, int] = {}
    for number, layer in enumerate(layers):
        for path, module in layer.named_modules():
            if path.rpartition(".")[2] == name and is_linear(module):
                # Not ``module.weight``: a quantized map unpacks a new tensor each time it is asked.
                stored = next(iter((*module.buffers(recurse=False), *module.parameters(recurse=False))))
                first = owners.setdefault(id(stored), number)
                if first != number:
                    return first, number
    return None


def projections(names: Sequence[str], maps: Collection[str]) -> tuple[str, ...]:
    """What a model with the linear maps ``maps`` has for Llama's ``names``, each once.

    A name that has no counterpart stays as it is, as does every name if ``maps`` is empty (not known).
    """
    found = (next((other for other in (name, *_OTHER_NAMES.get(name, ())) if other in maps), name) for name in names)
    return tuple(dict.fromkeys(found))


def rotary_switch(config: Any) -> int | None:
    """How many tokens a model reads before its rotary positions become those of long texts, or None.

    What was read before then has to be read again (Phi-3's long RoPE).
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    # Some families have one for each type of layer.
    for own in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if own.get("rope_type", own.get("type")) == "longrope":
            switch = own.get("original_max_position_embeddings", getattr(text, "original_max_position_embeddings", 0))
            return int(switch) or None
    return None


def context_length(config: Any) -> Any:
    """The longest text that a model with this text config was made for; OPPU's 2,048 tokens if it does not say."""
    names = ("max_position_embeddings", "max_seq_len", "seq_length", "model_max_length")
    return next((size for name in names if (size := getattr(config, name, None)) is not None), MAX_SEQUENCE)
