"""Answers of many prompts, with a KV cache and adapters attached: greedy, sampled, or scored from a fixed set."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.backbone._contrast import Contrast
from lampbench.backbone._decoding import NO_PENALTIES, Penalties
from lampbench.backbone._pass import Adapter, DecodingPass, PassWindow, attached
from lampbench.backbone._shared import SharedReading
from lampbench.backbone._written import Rules, Written
from lampbench.core import Sampling

# Rows that have ended leave when they are this part of a batch: each time, what the others hold is copied.
_LEAVING = 1 / 8


@dataclass(frozen=True)
class Batching:
    """How prompts are put together.

    Attributes:
        size: Rows at a time.
        leaves: Whether a row that has ended may leave the others.
        joins: Whether a row may take the place of one that has left.
    """

    size: int
    leaves: bool = False
    joins: bool = False

    @property
    def entering(self) -> int:
        """How many rows enter together: few, where they can, because rows of similar length need little padding."""
        return max(1, self.size // 4) if self.joins else self.size


class _Batch:
    """The prompts that are being answered, each of them one or two rows of a ``DecodingPass``.

    Attributes:
        held: Number of the prompt at each place.
        logits: Of the next token of every row.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Sequence[int]],
        numbers: Sequence[Sequence[int]],
        pad: int,
        batching: Batching,
        shared: SharedReading | None,
    ) -> None:
        self._model, self._rows, self._numbers, self._pad, self._batching = model, rows, numbers, pad, batching
        self._readings = len(numbers[0])
        self._shared = shared
        self._pass: DecodingPass | None = None
        self.window = PassWindow.empty(model.device)
        self.held: list[int] = []
        self.logits = torch.empty(0)

    def enter(self, prompts: Sequence[int]) -> None:
        """Read ``prompts`` and let them join the others."""
        rows = [self._rows[prompt] for prompt in prompts for _ in range(self._readings)]
        numbers = [number for prompt in prompts for number in self._numbers[prompt]]
        before = None if self._shared is None else self._shared.before(numbers, self.window)
        entered = DecodingPass(self._model, rows, self._pad, numbers, self.window, before)
        logits = entered.prefill()
        if self._batching.joins:
            entered.make_room()
        if self._pass is None:
            self._pass, self.logits = entered, logits
        else:
            self._pass.join(entered)
            self.logits = torch.cat([self.logits, logits])
        self.held += prompts

    def keep(self, places: Sequence[int]) -> None:
        """Only the prompts at these places."""
        self.held = [self.held[place] for place in places]
        if not places:
            self._pass = None
        elif self._pass is not None:
            self._pass.keep([place * self._readings + reading for place in places for reading in range(self._readings)])

    def feed(self, tokens: Tensor) -> None:
        """The next token of each prompt."""
        if self._pass is None:
            raise ValueError("no prompt is being answered")
        self.logits = self._pass.feed(tokens.repeat_interleave(self._readings).unsqueeze(-1))[:, -1]

    def readings(self) -> list[Tensor]:
        """Logits of the next token of every prompt, by each model that reads it."""
        return [self.logits[reading :: self._readings] for reading in range(self._readings)]


@torch.inference_mode()
def generate(
    model: Any,
    layers: nn.ModuleList,
    rows: Sequence[Sequence[int]],
    *,
    rules: Rules,
    pad: int,
    batching: Batching,
    shared: SharedReading | None = None,
    adapters: Sequence[Adapter] = (),
    numbers: Sequence[Sequence[int]] | None = None,
    sampling: Sampling | None = None,
    seeds: Sequence[int] = (),
    penalties: Penalties = NO_PENALTIES,
    contrast: Contrast | None = None,
    places: int = 0,
    progress: Callable[[float], None] = lambda rows: None,
) -> list[Written]:
    """What is written after each row.

    A row that has ended leaves the batch, and the next one takes its place, as far as ``batching`` allows it.

    Args:
        model: A causal language model of transformers.
        layers: Its decoder layers, for ``adapters``.
        rows: Prompt ids, in the order in which they are answered.
        rules: When a text ends.
        pad: Any token id; padding is masked.
        batching: How many rows at a time.
        shared: Reads what rows begin with, by their ``numbers``; None if each row is read whole.
        adapters: Applied in this order.
        numbers: What adapters know each reading of each row by (``PassWindow.rows``); default 0, 1, …
        sampling: None for greedy.
        seeds: One per row, for sampling.
        penalties: On what a row has read or written before.
        contrast: If given, every row is read by two models, and each token is chosen from both: ``numbers`` has two
            for each row.
        places: How many of a row's first ids are places of a prefix; penalties on repetition leave them out.
        progress: Called after each token of all rows with the rows that were written since, parts of rows included.
    """
    batch = _Batch(model, rows, [[i] for i in range(len(rows))] if numbers is None else numbers, pad, batching, shared)
    draws = [random.Random(seed) for seed in seeds]
    repeats = penalties.kept()
    written = [rules.begin() for _ in rows]
    # What a token is of a row.
    part = 1 / (rules.thinking + rules.limit + 1)
    entered = 0
    running: list[bool] = []
    with attached(adapters, layers, batch.window):
        while True:
            while entered < len(rows) and batching.size - len(batch.held) >= batching.entering:
                entering = range(len(rows))[entered : entered + batching.entering]
                batch.enter(entering)
                if repeats is not None:
                    repeats.enter([rows[row][places:] for row in entering])
                running += [True] * len(entering)
                entered += len(entering)
            scores = batch.readings() if repeats is None else [repeats.applied(own) for own in batch.readings()]
            best = scores[0] if contrast is None else contrast.scores(*scores)
            chosen = (
                best.argmax(-1) if sampling is None else sample_tokens(best, sampling, [draws[i] for i in batch.held])
            )
            tokens, done = chosen.tolist(), 0.0
            for place, row in enumerate(batch.held):
                if running[place]:
                    running[place] = written[row].take(tokens[place])
                    done += part if running[place] else 1 - part * (len(written[row].ids) - 1)
            progress(done)
            if repeats is not None:
                repeats.add(tokens)
            going = [place for place, goes_on in enumerate(running) if goes_on]
            if not going or (batching.leaves and len(running) - len(going) >= _LEAVING * len(running)):
                batch.keep(going)
                if repeats is not None:
                    repeats.keep(going)
                chosen, running = chosen[going], [True] * len(going)
            if going:
                batch.feed(chosen)
            elif entered == len(rows):
                return written


@torch.inference_mode()
def score_answers(
    model: Any,
    layers: nn.ModuleList,
    rows: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    pad: int,
    numbers: Sequence[int],
    adapters: Sequence[Adapter] = (),
    shared: SharedReading | None = None,
) -> Tensor:
    """Log-probability of each answer (ids, EOS included) after each row: (rows, answers), float32.

    ``numbers`` is what adapters know each row by; ``shared`` reads what rows begin with.
    """
    window = PassWindow.empty(model.device)
    width = max(map(len, answers))
    targets = torch.tensor([[*answer, *[pad] * (width - len(answer))] for answer in answers], device=model.device)
    real = torch.tensor([[column < len(answer) for column in range(width)] for answer in answers])
    with attached(adapters, layers, window):
        before = None if shared is None else shared.before(numbers, window)
        batch = DecodingPass(model, rows, pad, numbers, window, before)
        first = batch.prefill()
        batch.repeat(len(answers))
        # Padding after an answer is seen by nothing that counts, as attention is causal.
        rest = batch.feed(targets.repeat(len(rows), 1))[:, :-1]
    logits = torch.cat([first.repeat_interleave(len(answers), dim=0).unsqueeze(1), rest], dim=1)
    log_probabilities = logits.float().log_softmax(-1)
    picked = log_probabilities.gather(-1, targets.repeat(len(rows), 1).unsqueeze(-1)).squeeze(-1)
    masked = picked * real.to(picked.device).repeat(len(rows), 1)
    return masked.sum(-1).reshape(len(rows), len(answers))


def sample_tokens(logits: Tensor, sampling: Sampling, draws: Sequence[random.Random]) -> Tensor:
    """One token per row by temperature, top-k and top-p, from that row's own random numbers."""
    best = (logits.float() / sampling.temperature).topk(min(sampling.top_k, logits.shape[-1]))
    probabilities = best.values.softmax(-1)
    # A token stays while the mass before it is below top_p: the first one always does.
    before = probabilities.cumsum(-1) - probabilities
    mass = torch.where(before < sampling.top_p, probabilities, 0.0).cumsum(-1)
    points = torch.tensor([draw.random() for draw in draws], device=logits.device).unsqueeze(-1) * mass[:, -1:]
    return best.indices.gather(-1, (mass <= points).sum(-1, keepdim=True).clamp(max=mass.shape[-1] - 1)).squeeze(-1)
