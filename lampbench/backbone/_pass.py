"""A batch of prompts on its way through a model: its columns, its KV cache, and what adapters know of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lampbench.backbone._cache import as_cache, cut_left, gather, give_room, holds_states, is_plain, join, pairs
from lampbench.backbone._families import rotary_switch
from lampbench.core import LampBenchError


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

    @classmethod
    def empty(cls, device: torch.device) -> PassWindow:
        """No pass yet."""
        none = torch.zeros(0, dtype=torch.long, device=device)
        return cls(none, none, none, 0)


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


@dataclass(frozen=True)
class Before:
    """What was read of some rows.

    Attributes:
        cache: Plain, padded on the left; it is used up.
        mask: Its real columns, shape (rows, columns).
        lengths: How many tokens of each row that is.
    """

    cache: Any
    mask: Tensor
    lengths: Sequence[int]


class DecodingPass:
    """A left-padded batch and its KV cache, fed forward step by step; rows may leave it, and others join.

    Adapters act at every pass; ``window`` tells them which columns it computes, and which prompt
    (``numbers``) each row is. Where a model's rotary positions change at some length, everything is read again when
    the first row becomes longer, as ``generate`` does; the rows of a batch must then be of one length.

    Args:
        model: A causal language model of transformers.
        rows: Prompt ids.
        pad: Any token id; padding is masked.
        numbers: Of each row's prompt among those that the caller gave.
        window: What attached adapters look at; written before every pass.
        before: What was read of the rows already; not every model allows it (``_probes.py``).
        lengths: If rows are the beginnings of prompts, how many tokens the prompts have at least.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Sequence[int]],
        pad: int,
        numbers: Sequence[int],
        window: PassWindow | None = None,
        before: Before | None = None,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self._model = model
        self._pad = pad
        self._switch = rotary_switch(model.config)
        self._rows = rows
        self._before = before
        self._ids, self._mask, self._positions = left_pad(rows, pad, model.device)
        self._lengths = self._mask.sum(-1)
        self._numbers = torch.tensor(numbers, device=model.device)
        # No prompt reaches this column.
        self._width = self._ids.shape[1]
        if lengths is not None:
            self._lengths = torch.tensor(lengths, device=model.device)
            self._width += max(lengths)
        self._cache: Any = None
        self.window = window or PassWindow.empty(model.device)

    def __len__(self) -> int:
        return len(self._numbers)

    def prefill(self) -> Tensor:
        """Logits after each row's prompt, shape (rows, vocabulary)."""
        if self._before is not None:
            return self._prefill_after(self._before)
        return self._forward(self._ids, self._positions, keep=1)[:, -1]

    def feed(self, ids: Tensor) -> Tensor:
        """Logits after each of the next columns ``ids`` (rows, columns): (rows, columns, vocabulary)."""
        if ids.shape[1] > 1 and holds_states(self._cache):
            # A state is written for one more token at a time.
            return torch.cat([self.feed(column) for column in ids.split(1, dim=1)], dim=1)
        offset, columns = self._mask.shape[1], ids.shape[1]
        positions = self._positions[:, -1:] + torch.arange(1, columns + 1, device=ids.device)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=-1)
        if self._switch is not None:
            self._ids = torch.cat([self._ids, ids], dim=-1)
            if int(self._positions.max()) < self._switch <= int(positions.max()):
                self._cache, offset = None, 0
                ids, positions = self._ids, (self._mask.cumsum(-1) - 1).clamp(min=0)
        return self._forward(ids, positions, keep=columns, offset=offset)[:, -columns:]

    def repeat(self, times: int) -> None:
        """Every row ``times`` times in place, cache included."""
        self._take(torch.arange(len(self), device=self._mask.device).repeat_interleave(times))

    def keep(self, rows: Sequence[int]) -> None:
        """Only ``rows``, in this order; columns in which they hold nothing are left out if the cache lets them be."""
        self._take(torch.tensor(rows, device=self._mask.device))
        empty = self._mask.shape[1] - int(self._mask.sum(-1).max())
        if empty and self.is_plain:
            cut_left(self._cache, empty)
            self._mask, self._width = self._mask[:, empty:], self._width - empty

    def join(self, other: DecodingPass) -> None:
        """Add the rows of another batch, which is used up; not every model allows it (``_probes.py``)."""
        width = max(self._mask.shape[1], other._mask.shape[1])
        self._width += width - self._mask.shape[1]
        self._width = max(self._width, other._width + width - other._mask.shape[1])
        self._mask = torch.cat([_widened(self._mask, width), _widened(other._mask, width)])
        self._positions = torch.cat([self._positions[:, -1:], other._positions[:, -1:]])
        self._lengths = torch.cat([self._lengths, other._lengths])
        self._numbers = torch.cat([self._numbers, other._numbers])
        join(self._cache, other._cache)

    def read(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of one row without padding, for every layer; the cache must be plain."""
        first = self._mask.shape[1] - int(self._mask[row].sum())
        return [
            (keys[row : row + 1, :, first:], values[row : row + 1, :, first:]) for keys, values in pairs(self._cache)
        ]

    def make_room(self) -> None:
        """Reserve memory for what follows, so that a new column does not copy all others."""
        if self.is_plain:
            give_room(self._cache)

    @property
    def is_plain(self) -> bool:
        """Whether its cache is keys and values of all its columns, and nothing else."""
        layers = self._model.config.get_text_config().num_hidden_layers
        return self._switch is None and is_plain(self._cache, layers, self._mask.shape[1])

    def _take(self, rows: Tensor) -> None:
        # What beam search does: every kind of cache can do it.
        self._cache.reorder_cache(rows)
        self._mask, self._positions, self._lengths, self._numbers = (
            own.index_select(0, rows) for own in (self._mask, self._positions, self._lengths, self._numbers)
        )
        if self._switch is not None:
            self._ids = self._ids.index_select(0, rows)

    def _prefill_after(self, before: Before) -> Tensor:
        """Read the rest of each row; after that, the cache is that of one prefill."""
        rest = [row[length:] for row, length in zip(self._rows, before.lengths, strict=True)]
        ids, real, _ = left_pad(rest, self._pad, self._mask.device)
        self._cache, columns, width = before.cache, before.mask.shape[1], self._width
        self._mask = torch.cat([before.mask, real], dim=-1)
        self._width = self._mask.shape[1]
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, columns:]
        logits = self._forward(ids, positions, keep=1, offset=columns)[:, -1]
        # Padding stands between a beginning and the rest: all of it goes to the left.
        kept = self._mask.argsort(dim=-1, stable=True)[:, -width:]
        gather(self._cache, kept)
        self._mask, self._width, self._before = self._mask.gather(1, kept), width, None
        return logits

    def _forward(self, ids: Tensor, positions: Tensor, keep: int, offset: int = 0) -> Tensor:
        window, self._positions = self.window, positions
        window.starts = self._mask.shape[1] - self._mask.sum(-1)
        window.ends = window.starts + self._lengths
        window.rows, window.width, window.offset = self._numbers, self._width, offset
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **at_positions(self._model, positions),
            **keep_logits(self._model, keep),
        )
        self._cache = as_cache(output.past_key_values)
        logits: Tensor = output.logits
        if logits.isnan().any():
            raise LampBenchError(
                "the model's logits are no numbers (NaN): its weights are damaged, float16 overflows (take bfloat16 or "
                "float32), or a training diverged (take a smaller learning_rate)"
            )
        return logits


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows padded on the left to one length, the mask of real columns, and their positions; each (rows, columns)."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


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


def _widened(mask: Tensor, width: int) -> Tensor:
    return nn.functional.pad(mask, (width - mask.shape[1], 0))
