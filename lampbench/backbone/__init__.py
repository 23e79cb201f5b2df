"""The frozen language model: loading, encoding, batched generation with adapters attached."""

from lampbench.backbone._backbone import OPPU_SAMPLING, Decoding, TransformersBackbone
from lampbench.backbone._chat import Chat, Frame, chat_identity, frame_of, has_template
from lampbench.backbone._decode import Adapter, PassWindow, attached, sample_tokens
from lampbench.backbone._encode import MAX_SEQUENCE, PromptEncoder, Usage
from lampbench.backbone._load import BackboneInfo, describe_backbone, device_and_dtype, find_layers, load_tokenizer
from lampbench.backbone._partial import (
    key_value_cache,
    keys_and_values,
    layer_output,
    layers_left_out,
    only_columns,
    only_inputs,
)
from lampbench.backbone._repeats import Penalties

__all__ = [
    "MAX_SEQUENCE",
    "OPPU_SAMPLING",
    "Adapter",
    "BackboneInfo",
    "Chat",
    "Decoding",
    "Frame",
    "PassWindow",
    "Penalties",
    "PromptEncoder",
    "TransformersBackbone",
    "Usage",
    "attached",
    "chat_identity",
    "describe_backbone",
    "device_and_dtype",
    "find_layers",
    "frame_of",
    "has_template",
    "key_value_cache",
    "keys_and_values",
    "layer_output",
    "layers_left_out",
    "load_tokenizer",
    "only_columns",
    "only_inputs",
    "sample_tokens",
]
