"""How an adapter is trained, and the solo engine: one user after another, in the plainest way that is right.

The stacked engine is tested and measured against the solo engine. LoRA trains in peft's own modules.
Interventions train in ``Intervention`` and not in pyreft's, whose rotation is erased by the weight
decay that every recipe here has; without weight decay the two give the same parameters (tested).

Weight decay acts on every parameter of an adapter. transformers' Trainer, in which pyreft trains, exempts biases. Which
of the two PerFit does is not known, as its code is not released; at its settings (decay 0.01, learning rate 1e-4, some
hundred steps) the exemption changes a bias by less than 0.1%.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from lampbench.adapters._dropout import row_key
from lampbench.adapters._spec import AdapterSpec, PerUser, State, acting, exact
from lampbench.core import Pair, later

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lampbench.backbone import Adapter, TransformersBackbone
else:
    torch = later("torch")

Encoded = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """AdamW (betas 0.9 and 0.999), linear warm-up and decay, gradient clip, token-mean loss.

    With ``l1``, that times the sum of all parameters' absolute values is added to the loss. With ``most_steps``,
    training ends after so many steps at the latest.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    clip: float
    batch_size: int
    l1: float = 0.0
    most_steps: int | None = None

    def steps(self, examples: int) -> int:
        """Optimizer steps over ``examples`` training examples."""
        steps = self.epochs * math.ceil(examples / self.batch_size)
        return steps if self.most_steps is None else min(steps, self.most_steps)

    def batches(self, examples: int, seed: int) -> Iterator[list[int]]:
        """The examples of every step: a new order each epoch, the last batch of an epoch may be short."""
        return islice(self._endless(examples, seed), self.steps(examples))

    def _endless(self, examples: int, seed: int) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(examples, generator=generator).tolist()
            for start in range(0, len(order), self.batch_size):
                yield order[start : start + self.batch_size]

    def penalize(self, parameters: Sequence[Tensor]) -> None:
        """Add the gradient of the ``l1`` penalty to the parameters' gradients."""
        with torch.no_grad():
            for parameter in parameters if self.l1 else ():
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.sign(), alpha=self.l1)

    def schedule(self, steps: int) -> Callable[[int], float]:
        """The learning rate of each step (from 0): up from 0 in the warm-up, then down to 0."""
        warmup = math.ceil(steps * self.warmup_ratio)

        def rate(step: int) -> float:
            if step < warmup:
                return self.learning_rate * step / warmup
            return self.learning_rate * max(0.0, (steps - step) / max(1, steps - warmup))

        return rate


@dataclass(frozen=True)
class TrainingJob:
    """One user's training.

    Attributes:
        name: The user's id.
        seed: Of the order of examples and of dropout.
        pairs: The training examples.
        starts: Where each of the adapters begins that train together.
        given: Called with the number of an example, tells its adapters something about it: a tensor. None if they
            depend on nothing but their parameters.
    """

    name: str
    seed: int
    pairs: Sequence[Pair]
    starts: Sequence[State]
    given: Callable[[int], Tensor] | None = None


def train_alone(
    backbone: TransformersBackbone,
    job: TrainingJob,
    specs: Sequence[AdapterSpec],
    recipe: Recipe,
    *,
    beneath: Sequence[Adapter | PerUser] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[State]:
    """Train one user's adapters so that the backbone continues each prompt with its target.

    Args:
        backbone: Frozen; no gradient is kept for it.
        job: The user. The loss is the mean over the batch's target tokens, EOS included.
        specs: Of the adapters, which train together and act in this order.
        recipe: Optimizer settings.
        beneath: Frozen adapters that act before all of them.
        progress: Called as ``progress(steps done, steps in all)``.
    """
    encoded = [backbone.encoder.pair(pair) for pair in job.pairs]
    steps = recipe.steps(len(encoded))
    with ExitStack() as stack:
        lone = [stack.enter_context(spec.alone(backbone, start)) for spec, start in zip(specs, job.starts, strict=True)]
        parameters = [parameter for adapter in lone for parameter in adapter.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        rate = recipe.schedule(steps)
        for step, chosen in enumerate(recipe.batches(len(encoded), job.seed)):
            keys = torch.tensor([row_key(job.seed, step, i) for i in chosen], device=backbone.model.device)
            batch = [encoded[i] for i in chosen]
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.zero_grad(set_to_none=True)
            given = None if job.given is None else side_by_side([job.given(i) for i in chosen], backbone.device)
            own = (a.adapter(keys) if given is None else a.informed(given, keys) for a in lone)
            adapters = [*acting(beneath, [job.name] * len(chosen)), *own]
            batch_loss(backbone, batch, adapters).backward()
            recipe.penalize(parameters)
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimizer.step()
            backbone.usage.train_tokens += sum(len(prompt) + len(target) for prompt, target in batch)
            progress(step + 1, steps)
        return [adapter.state() for adapter in lone]


def batch_loss(backbone: TransformersBackbone, batch: Sequence[Encoded], adapters: Sequence[Adapter]) -> Tensor:
    """Mean cross-entropy over the batch's target tokens, a scalar: padded on the right, every logit computed."""
    from lampbench.backbone import PassWindow, attached

    device = backbone.model.device
    rows = [torch.tensor(prompt + target) for prompt, target in batch]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=backbone.pad).to(device)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    ends = torch.tensor([len(prompt) for prompt, _ in batch], device=device)
    window = PassWindow(torch.zeros_like(ends), ends, torch.arange(len(batch), device=device), ids.shape[1])
    with attached(adapters, backbone.layers, window):
        logits = backbone.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    is_target = (torch.arange(ids.shape[1], device=device) >= ends.unsqueeze(1)) & mask.bool()
    return torch.nn.functional.cross_entropy(exact(logits[:, :-1][is_target[:, 1:]]), ids[:, 1:][is_target[:, 1:]])


def side_by_side(given: Sequence[Tensor], device: str) -> Tensor:
    """What is given with several examples, shape (examples, …); what is shorter is followed by zeros."""
    return torch.nn.utils.rnn.pad_sequence(list(given), batch_first=True).to(device)
