"""The frozen language model: loading, encoding, batched generation with adapters attached."""

from lampbench.backbone._backbone import OPPU_SAMPLING, Decoding, TransformersBackbone
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
from lampbench.backbone._quantize import check_quantization

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
    "attached",
    "check_quantization",
    "describe_backbone",
    "device_and_dtype",
    "find_layers",
    "key_value_cache",
    "keys_and_values",
    "layer_output",
    "layers_left_out",
    "load_tokenizer",
    "only_columns",
    "only_inputs",
    "sample_tokens",
]
