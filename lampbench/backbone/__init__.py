"""The frozen language model: loading, encoding, batched generation with adapters attached."""

from lampbench.backbone._backbone import OPPU_SAMPLING, Decoding, TransformersBackbone
from lampbench.backbone._decode import Adapter, PassWindow, alike, attached, sample_tokens
from lampbench.backbone._encode import MAX_SEQUENCE, PromptEncoder, Usage
from lampbench.backbone._families import is_linear, linear_maps, projections, shared_layers
from lampbench.backbone._load import BackboneInfo, describe_backbone, device_and_dtype, find_layers, load_tokenizer
from lampbench.backbone._partial import (
    all_keys_and_values,
    key_value_cache,
    keys_and_values,
    layer_output,
    layers_left_out,
    only_columns,
    only_inputs,
)

__all__ = [
    "MAX_SEQUENCE",
    "OPPU_SAMPLING",
    "Adapter",
    "BackboneInfo",
    "Decoding",
    "PassWindow",
    "PromptEncoder",
    "TransformersBackbone",
    "Usage",
    "alike",
    "all_keys_and_values",
    "attached",
    "describe_backbone",
    "device_and_dtype",
    "find_layers",
    "is_linear",
    "key_value_cache",
    "keys_and_values",
    "layer_output",
    "layers_left_out",
    "linear_maps",
    "load_tokenizer",
    "only_columns",
    "only_inputs",
    "projections",
    "sample_tokens",
    "shared_layers",
]
