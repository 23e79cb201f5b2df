"""What training and answering must compute at least, and how fast the machine multiplies matrices."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lampbench.adapters import AdapterSpec, InterventionSpec, LoraSpec, Recipe
from lampbench.backbone import TransformersBackbone

_EVERYWHERE = ("k_proj", "v_proj")


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder: parameters of one layer's linear maps, all and the two needed at every column."""

    layers: int
    width: int
    vocabulary: int
    layer: int
    everywhere: int

    @classmethod
    def of(cls, backbone: TransformersBackbone) -> Shape:
        linear = {n: m.weight.numel() for n, m in backbone.layers[0].named_modules() if isinstance(m, nn.Linear)}
        return cls(
            layers=backbone.shape.layers,
            width=backbone.shape.width,
            vocabulary=backbone.model.get_output_embeddings().weight.shape[0],
            layer=sum(linear.values()),
            everywhere=sum(size for name, size in linear.items() if name.rpartition(".")[2] in _EVERYWHERE),
        )

    def forward(self, columns: int, past: int = 0) -> float:
        """FLOPs of one layer over ``columns`` new columns after ``past`` others; attention is causal."""
        return 2.0 * self.layer * columns + 4.0 * self.width * columns * (past + columns / 2)

    def last_layer(self, columns: int, targets: int, past: int = 0) -> float:
        """FLOPs of the last layer when only ``targets`` columns are read."""
        linear = 2.0 * (self.everywhere * columns + (self.layer - self.everywhere) * targets)
        return linear + 4.0 * self.width * targets * (past + columns / 2)


@dataclass(frozen=True)
class Savings:
    """What a way of training leaves out; with all of them, nothing needless is computed.

    Attributes:
        unread: Logits, and the last layer's columnwise parts, where nothing is predicted.
        constant: What never changes, after the first time.
    """

    unread: bool = True
    constant: bool = True


def training_flops(
    backbone: TransformersBackbone,
    spec: AdapterSpec,
    recipe: Recipe,
    examples: Sequence[tuple[int, int]],
    *,
    savings: Savings,
    beneath: AdapterSpec | None = None,
) -> float:
    """What training computes.

    Args:
        backbone: Gives the sizes.
        spec: What is trained.
        recipe: For its epochs.
        examples: Tokens of each prompt and of each target.
        savings: What is left out.
        beneath: A frozen adapter below.
    """
    shape = Shape.of(backbone)
    constant, epochs = spec.constant_layers(backbone), recipe.epochs
    above = shape.layers - constant
    total = 0.0
    for prompt, target in examples:
        columns = prompt + target - 1
        start = max(0, prompt - spec.suffix) if spec.suffix is not None and savings.constant else 0
        running = columns - start
        # Everything below the adapted layer; of a split prompt, everything before its last tokens.
        below = shape.layers * shape.forward(start) + constant * shape.forward(running, start)
        read = target if savings.unread else columns
        last = shape.last_layer(running, target, start) if savings.unread else shape.forward(running, start)
        upper = max(0, above - 1) * shape.forward(running, start) + (last if above else 0.0)
        head = 2.0 * shape.vocabulary * shape.width * read
        # Forward, and backward through frozen maps, which costs the same again; through trained ones, twice that.
        adapters = 3 * _adapter_forward(backbone, spec, running)
        adapters += 2 * _adapter_forward(backbone, beneath, running) if beneath is not None else 0.0
        total += (1 if savings.constant else epochs) * below + epochs * (2 * (upper + head) + adapters)
    return total


def answering_flops(backbone: TransformersBackbone, prompts: Sequence[int], written: Sequence[int]) -> float:
    """FLOPs of reading prompts and writing tokens with a cache."""
    shape = Shape.of(backbone)
    head = 2.0 * shape.vocabulary * shape.width
    read = sum(shape.layers * shape.forward(prompt) + head for prompt in prompts)
    steps = sum(
        shape.layers * sum(shape.forward(1, prompt + i) for i in range(tokens)) + head * tokens
        for prompt, tokens in zip(prompts, written, strict=True)
    )
    return read + steps


def product_rate(backbone: TransformersBackbone, columns: int = 2048, seconds: float = 1.0) -> float:
    """FLOP/s of products with a layer's own weights over ``columns`` columns: the best the machine gives here."""
    weights = [module.weight for module in backbone.layers[0].modules() if isinstance(module, nn.Linear)]
    inputs = [torch.randn(columns, weight.shape[1], dtype=weight.dtype, device=weight.device) for weight in weights]

    def round_of_products() -> None:
        for x, weight in zip(inputs, weights, strict=True):
            nn.functional.linear(x, weight)
        if weights[0].is_cuda:
            torch.cuda.synchronize()

    round_of_products()
    best, begin = float("inf"), time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            round_of_products()
            best = min(best, time.perf_counter() - start)
    return 2.0 * columns * sum(weight.numel() for weight in weights) / best


def _adapter_forward(backbone: TransformersBackbone, spec: AdapterSpec, columns: int) -> float:
    if isinstance(spec, LoraSpec):
        return 2.0 * spec.parameter_count(backbone) * columns
    if isinstance(spec, InterventionSpec):
        edited = columns if spec.suffix is None else min(spec.suffix, columns)
        return 2.0 * spec.parameter_count(backbone) * edited
    return 0.0
