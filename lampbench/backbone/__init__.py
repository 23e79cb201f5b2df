"""The frozen language model: loading, encoding, batched generation with adapters attached; or a served one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lampbench.backbone._api import Patience
from lampbench.backbone._chat import Chat, Frame, chat_identity, frame_of, has_template
from lampbench.backbone._decoding import OPPU_SAMPLING, Decoding, Penalties
from lampbench.backbone._encode import MAX_SEQUENCE, PromptEncoder, Usage
from lampbench.backbone._families import attention_outputs, is_linear, linear_maps, projections, shared_layers
from lampbench.backbone._load import BackboneInfo, describe_backbone, device_and_dtype, find_layers, load_tokenizer
from lampbench.backbone._served import Reply, ServedBackbone
from lampbench.backbone._server import SERVED, UNKNOWN, ServedInfo, describe_served, is_served
from lampbench.core import later_names

if TYPE_CHECKING:
    from lampbench.backbone._backbone import TransformersBackbone
    from lampbench.backbone._contrast import Contrast
    from lampbench.backbone._decode import sample_tokens
    from lampbench.backbone._partial import (
        all_keys_and_values,
        key_value_cache,
        keys_and_values,
        layer_output,
        layers_left_out,
        one_logit,
        only_columns,
        only_inputs,
    )
    from lampbench.backbone._pass import Adapter, PassWindow, attached
    from lampbench.backbone._past import past_apart
    from lampbench.backbone._probes import alike
    from lampbench.backbone._quantize import check_quantization

__all__ = [
    "MAX_SEQUENCE",
    "OPPU_SAMPLING",
    "SERVED",
    "UNKNOWN",
    "Adapter",
    "BackboneInfo",
    "Chat",
    "Contrast",
    "Decoding",
    "Frame",
    "PassWindow",
    "Patience",
    "Penalties",
    "PromptEncoder",
    "Reply",
    "ServedBackbone",
    "ServedInfo",
    "TransformersBackbone",
    "Usage",
    "alike",
    "all_keys_and_values",
    "attached",
    "attention_outputs",
    "chat_identity",
    "check_quantization",
    "describe_backbone",
    "describe_served",
    "device_and_dtype",
    "find_layers",
    "frame_of",
    "has_template",
    "is_linear",
    "is_served",
    "key_value_cache",
    "keys_and_values",
    "layer_output",
    "layers_left_out",
    "linear_maps",
    "load_tokenizer",
    "one_logit",
    "only_columns",
    "only_inputs",
    "past_apart",
    "projections",
    "sample_tokens",
    "shared_layers",
]

# Only these import torch, which a served model does not need.
__getattr__ = later_names(
    __name__,
    __all__,
    ("_backbone", "_contrast", "_decode", "_partial", "_pass", "_past", "_probes", "_quantize"),
)
