"""Batched decoding with a KV cache and adapters attached: greedy, sampled, or scoring a fixed set of answers."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lampbench.backbone._contrast import Contrast
from lampbench.backbone._decoding import NO_PENALTIES, Penalties
from lampbench.backbone._families import rotary_switch
from lampbench.backbone._written import Rules, Written
from lampbench.core import LampBenchError, Sampling


@dataclass
class PassWindow:
    """Which columns the current forward pass computes, and where each row's prompt lies.

    The backbone updates it before every pass: the whole prompt at prefill (``offset`` 0), then one
    column per pass while decoding.

    Attributes:
        starts: First column of each row's prompt, shape (rows,); columns before it are padding.
        ends: The column after each row's prompt, shape (rows,).
        rows: The number of each row's prompt among those that the caller gave, shape (rows,): what
            an adapter looks its user up by.
        width: No prompt reaches this column; a pass that begins there or later holds none.
        offset: Column number of the pass's first column.
    """

    starts: Tensor
    ends: Tensor
    rows: Tensor
    width: int
    offset: int = 0


class Adapter(Protocol):
    """Something that changes what a frozen backbone computes, while attached."""

    def attach(self, layers: nn.ModuleList, window: PassWindow) -> AbstractContextManager[None]:
        """Act on the decoder ``layers`` inside the ``with`` block; leave no trace after it."""


@contextmanager
def attached(adapters: Sequence[Adapter], layers: nn.ModuleList, window: PassWindow) -> Iterator[None]:
    """Let ``adapters`` act, in this order, inside the ``with`` block."""
    with ExitStack() as stack:
        for adapter in adapters:
            stack.enter_context(adapter.attach(layers, window))
        yield


class DecodingPass:
    """A left-padded batch and its KV cache, fed forward step by step.

    Adapters act at every pass; ``window`` tells them which columns it computes, and which prompt
    (``numbers``) each row is. Where a model's rotary positions change at some length, everything is read again when
    the first row becomes longer, as ``generate`` does; the rows of a batch must then be of one length.
    """

    def __init__(self, model: Any, rows: Sequence[Sequence[int]], pad: int, numbers: Sequence[int]) -> None:
        self._model = model
        self._switch = rotary_switch(model.config)
        self._ids, self._mask, self._positions = left_pad(rows, pad, model.device)
        self._cache: Any = None
        width = self._ids.shape[1]
        starts = width - self._mask.sum(-1)
        self.window = PassWindow(
            starts, torch.full_like(starts, width), torch.tensor(numbers, device=model.device), width
        )

    def prefill(self) -> Tensor:
        """Logits after each row's prompt, shape (rows, vocabulary)."""
        return self._forward(self._ids, self._positions, keep=1)[:, -1]

    def feed(self, ids: Tensor) -> Tensor:
        """Logits after each of the next columns ``ids`` (rows, columns): (rows, columns, vocabulary)."""
        if ids.shape[1] > 1 and holds_states(self._cache):
            # A state is written for one more token at a time.
            return torch.cat([self.feed(column) for column in ids.split(1, dim=1)], dim=1)
        self.window.offset = self._mask.shape[1]
        columns = ids.shape[1]
        positions = self._positions[:, -1:] + torch.arange(1, columns + 1, device=ids.device)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=-1)
        if self._switch is not None:
            self._ids = torch.cat([self._ids, ids], dim=-1)
            if int(self._positions.max()) < self._switch <= int(positions.max()):
                self._cache, self.window.offset = None, 0
                ids, positions = self._ids, (self._mask.cumsum(-1) - 1).clamp(min=0)
        return self._forward(ids, positions, keep=columns)[:, -columns:]

    def repeat(self, times: int) -> None:
        """Every row ``times`` times in place, cache included."""
        rows = torch.arange(len(self._ids), device=self._ids.device)
        # What beam search does: unlike a plain repetition, every kind of cache can do it.
        self._cache.reorder_cache(rows.repeat_interleave(times))
        self._ids = self._ids.repeat_interleave(times, dim=0)
        self._mask = self._mask.repeat_interleave(times, dim=0)
        self._positions = self._positions.repeat_interleave(times, dim=0)
        self.window.starts = self.window.starts.repeat_interleave(times)
        self.window.ends = self.window.ends.repeat_interleave(times)
        self.window.rows = self.window.rows.repeat_interleave(times)

    def _forward(self, ids: Tensor, positions: Tensor, keep: int) -> Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **at_positions(self._model, positions),
            **keep_logits(self._model, keep),
        )
        self._cache = _as_cache(output.past_key_values)
        self._positions = positions
        logits: Tensor = output.logits
        if logits.isnan().any():
            raise LampBenchError(
                "the model's logits are no numbers (NaN): its weights are damaged, float16 overflows (take bfloat16 or "
                "float32), or a training diverged (take a smaller learning_rate)"
            )
        return logits


@torch.inference_mode()
def padding_changes_nothing(model: Any, pad: int) -> bool:
    """Whether a short row gets the same logits, now and one token later, beside a long one as alone."""
    tokens = min(1000, model.get_output_embeddings().weight.shape[0])
    short, long = ([(11 * (i + 3) ** 2 + 7) % tokens for i in range(length)] for length in (5, 12))
    found = []
    for rows in ([short], [short, long]):
        batch = DecodingPass(model, rows, pad, range(len(rows)))
        following = torch.full((len(rows), 1), short[0], device=model.device)
        found.append(torch.stack([batch.prefill()[0], batch.feed(following)[0, -1]]))
    return alike(found[1], found[0])


def alike(found: Tensor, expected: Tensor) -> bool:
    """Whether two computations of the same logits differ by rounding alone.

    Where something that counts is left out, or added, they differ by much more.
    """
    # For float64, too: some models compute parts in float32.
    allowed = 1e-3 if torch.finfo(expected.dtype).bits >= 32 else 0.1
    scale = (expected - expected.mean(-1, keepdim=True)).float().norm()
    return bool((found - expected).float().norm() <= allowed * scale)


def holds_states(cache: Any) -> bool:
    """Whether a cache holds more than keys and values: a convolution's last inputs, or the state of a recurrence."""
    parts = [cache, *getattr(cache, "layers", ())]
    return any("state" in name and held is not None for part in parts for name, held in vars(part).items())


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows padded on the left to one length, the mask of real columns, and their positions; each (rows, columns)."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def _as_cache(past: Any) -> Any:
    """A cache object; transformers 4.45 hands out tuples."""
    if not isinstance(past, tuple):
        return past
    from transformers import DynamicCache

    return DynamicCache.from_legacy_cache(past)


def at_positions(model: nn.Module, positions: Tensor) -> dict[str, Tensor]:
    """The keyword that says where tokens are, for a model that does not find that in the attention mask."""
    known = inspect.signature(model.forward).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return {"position_ids": positions} if open_ended or "position_ids" in known else {}


def keep_logits(model: nn.Module, count: int) -> dict[str, int]:
    """The keyword that limits logits to the last ``count`` columns, under its name in this version."""
    known = inspect.signature(model.forward).parameters
    for name in ("logits_to_keep", "num_logits_to_keep"):
        if name in known:
            return {name: count}
    return {}


@torch.inference_mode()
def generate(
    model: Any,
    layers: nn.ModuleList,
    rows: Sequence[Sequence[int]],
    *,
    rules: Rules,
    pad: int,
    adapters: Sequence[Adapter] = (),
    numbers: Sequence[int] | None = None,
    sampling: Sampling | None = None,
    seeds: Sequence[int] = (),
    penalties: Penalties = NO_PENALTIES,
    contrast: Contrast | None = None,
    places: int = 0,
    step: Callable[[], None] = lambda: None,
) -> list[Written]:
    """What is written after each row.

    Args:
        model: A causal language model of transformers.
        layers: Its decoder layers, for ``adapters``.
        rows: Prompt ids.
        rules: When a text ends.
        pad: Any token id; padding is masked.
        adapters: Applied in this order.
        numbers: What adapters know each row by (``PassWindow.rows``); default 0, 1, …
        sampling: None for greedy.
        seeds: One per row, for sampling.
        penalties: On what a row has read or written before.
        contrast: If given, every row is read by two models, and each token is chosen from both. ``numbers`` has the
            rows of the second model after those of the first.
        places: How many of a row's first ids are places of a prefix; penalties on repetition leave them out.
        step: Called after each token of all rows.
    """
    read = rows if contrast is None else [*rows, *rows]
    batch = DecodingPass(model, read, pad, range(len(read)) if numbers is None else numbers)
    draws = [random.Random(seed) for seed in seeds]
    repeats = penalties.after([row[places:] for row in read])
    written = [rules.begin() for _ in rows]
    running = [True] * len(rows)
    with attached(adapters, layers, batch.window):
        logits = batch.prefill()
        while True:
            if repeats is not None:
                logits = repeats.applied(logits)
            if contrast is not None:
                logits = contrast.scores(*logits.chunk(2))
            chosen = logits.argmax(-1) if sampling is None else sample_tokens(logits, sampling, draws)
            tokens = chosen.tolist()
            for row, token in enumerate(tokens):
                if running[row]:
                    running[row] = written[row].take(token)
            if not any(running):
                return written
            step()
            if contrast is not None:
                chosen = chosen.repeat(2)
            if repeats is not None:
                repeats.add(chosen.tolist())
            logits = batch.feed(chosen.unsqueeze(-1))[:, -1]


@torch.inference_mode()
def score_answers(
    model: Any,
    layers: nn.ModuleList,
    rows: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    pad: int,
    adapters: Sequence[Adapter] = (),
    numbers: Sequence[int] | None = None,
) -> Tensor:
    """Log-probability of each answer (ids, EOS included) after each row: (rows, answers), float32."""
    batch = DecodingPass(model, rows, pad, range(len(rows)) if numbers is None else numbers)
    width = max(map(len, answers))
    targets = torch.tensor([[*answer, *[pad] * (width - len(answer))] for answer in answers], device=model.device)
    real = torch.tensor([[column < len(answer) for column in range(width)] for answer in answers])
    with attached(adapters, layers, batch.window):
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
