"""How an adapter is trained, whichever engine does it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from lampbench.adapters._spec import State
from lampbench.core import Pair


@dataclass(frozen=True, slots=True)
class Recipe:
    """AdamW (betas 0.9 and 0.999), linear warm-up and decay, gradient clip, token-mean loss."""

    epochs: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    clip: float
    batch_size: int

    def steps(self, examples: int) -> int:
        """Optimizer steps over ``examples`` training examples."""
        return self.epochs * math.ceil(examples / self.batch_size)

    def batches(self, examples: int, seed: int) -> Iterator[list[int]]:
        """The examples of every step: a new order each epoch, the last batch of an epoch may be short."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.epochs):
            order = torch.randperm(examples, generator=generator).tolist()
            for start in range(0, len(order), self.batch_size):
                yield order[start : start + self.batch_size]

    def schedule(self, steps: int) -> Callable[[int], float]:
        """The learning rate of each step (from 0): up from 0 in the warm-up, then down to 0."""
        warmup = math.ceil(steps * self.warmup_ratio)

        def rate(step: int) -> float:
            if step < warmup:
                return self.learning_rate * step / warmup
            return self.learning_rate * max(0.0, (steps - step) / max(1, steps - warmup))

        return rate


@dataclass(frozen=True)
class Job:
    """One user's training.

    Attributes:
        name: The user's id.
        seed: Of the order of examples and of dropout.
        pairs: The training examples.
        starts: Where each of the adapters begins that train together.
    """

    name: str
    seed: int
    pairs: Sequence[Pair]
    starts: Sequence[State]
