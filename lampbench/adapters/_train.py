"""The training loop of one adapter: one user, or the shared stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lampbench.adapters._edits import InterventionSet
from lampbench.backbone import Adapter, TransformersBackbone, Window, keep_logits, left_pad
from lampbench.core import Pair

_Encoded = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is trained: AdamW, linear warm-up and decay, gradient clip, token-mean loss."""

    epochs: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    clip: float
    batch_size: int


def train(
    backbone: TransformersBackbone,
    pairs: Sequence[Pair],
    trained: Sequence[InterventionSet],
    recipe: Recipe,
    *,
    seed: int,
    beneath: Sequence[Adapter] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train adapters so that the backbone continues each prompt with its target.

    Args:
        backbone: Frozen; no gradient is kept for it.
        pairs: Training examples. The loss is the mean over the batch's target tokens, EOS included.
        trained: Sets that are trained together and act in this order; changed in place.
        recipe: Optimizer settings.
        seed: Orders the examples of every epoch.
        beneath: Frozen adapters that act before all of ``trained``.
        progress: Called as ``progress(steps done, steps in all)``.
    """
    encoded = [backbone.encode_pair(pair) for pair in pairs]
    steps = recipe.epochs * math.ceil(len(encoded) / recipe.batch_size)
    parameters = [parameter for adapter in trained for parameter in adapter.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, linear_schedule(steps, recipe.warmup_ratio))
    for step, batch in enumerate(_batches(encoded, recipe, seed), start=1):
        optimizer.zero_grad(set_to_none=True)
        adapters = [*beneath, *(adapter.current() for adapter in trained)]
        batch_loss(backbone, batch, adapters).backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        schedule.step()
        backbone.usage.train_tokens += sum(len(prompt) + len(target) for prompt, target in batch)
        progress(step, steps)


def linear_schedule(steps: int, warmup_ratio: float) -> Callable[[int], float]:
    """The factor of the learning rate at each step: up from 0 in the warm-up, then down to 0."""
    warmup = math.ceil(steps * warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return factor


def batch_loss(backbone: TransformersBackbone, batch: Sequence[_Encoded], adapters: Sequence[Adapter]) -> Tensor:
    """Mean cross-entropy over the batch's target tokens, a scalar."""
    model = backbone.model
    ids, mask = (
        torch.tensor(part, device=model.device)
        for part in left_pad([prompt + target for prompt, target in batch], backbone.pad)
    )
    width = ids.shape[1]
    lengths = torch.tensor([len(target) for _, target in batch], device=model.device)
    window = Window(starts=width - mask.sum(-1), ends=width - lengths)
    # Left padding puts all targets at the end: logits are needed there and one column earlier.
    keep = int(lengths.max()) + 1
    with ExitStack() as stack:
        for adapter in adapters:
            stack.enter_context(adapter.attach(backbone.layers, window))
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            **keep_logits(model, keep),
        ).logits[:, -keep:-1]
    labels = ids[:, 1 - keep :]
    column = torch.arange(width - keep + 1, width, device=model.device)
    is_target = column >= window.ends.unsqueeze(1)
    return cross_entropy(logits[is_target].float(), labels[is_target])


def _batches(encoded: Sequence[_Encoded], recipe: Recipe, seed: int) -> Iterator[list[_Encoded]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(encoded), generator=generator).tolist()
        for start in range(0, len(order), recipe.batch_size):
            yield [encoded[i] for i in order[start : start + recipe.batch_size]]
