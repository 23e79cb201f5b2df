"""The frozen language model: loading, encoding, batched generation with adapters attached."""

from lampbench.backbone._adapter import Adapter, Window
from lampbench.backbone._backbone import OPPU_SAMPLING, Decoding, TransformersBackbone
from lampbench.backbone._decode import keep_logits
from lampbench.backbone._encode import MAX_SEQUENCE, PromptEncoder, Usage, left_pad
from lampbench.backbone._load import BackboneInfo, describe_backbone, find_layers, load_tokenizer

__all__ = [
    "MAX_SEQUENCE",
    "OPPU_SAMPLING",
    "Adapter",
    "BackboneInfo",
    "Decoding",
    "PromptEncoder",
    "TransformersBackbone",
    "Usage",
    "Window",
    "describe_backbone",
    "find_layers",
    "keep_logits",
    "left_pad",
    "load_tokenizer",
]
