"""Attention over a constant past: keys and values that are neither repeated, appended to, nor differentiated.

transformers appends a pass's own keys and values to those of the cache, repeats both for every query head that shares
them, and computes gradients for all of them. Where the past is long, constant and needs no gradient, and few columns
run on, those copies cost more than the products. Here the cache gives back the pass's own keys and values alone, and
the past joins them in the attention function itself, where one product serves all heads that share a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def past_apart(cache: Any, pasts: Mapping[int, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Let passes with ``cache`` read ``pasts`` inside the ``with`` block; the cache's own content gives its length.

    Only attention through ``torch.nn.functional.scaled_dot_product_attention`` with the whole mask is served.

    Args:
        cache: A cache of transformers, as long as the pasts.
        pasts: Layer number -> keys and values, each of shape (rows, key-value heads, columns, head width).

    Raises:
        ValueError: In a pass whose attention has another form.
    """
    joining = _Joining(pasts)
    cache.update = joining.update
    with joining:
        yield


class _Joining(TorchFunctionMode):
    """Joins a layer's past to the attention that follows the update of its cache."""

    def __init__(self, pasts: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._pasts = pasts
        self._next: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, layer: int, *rest: Any, **more: Any) -> tuple[Tensor, Tensor]:
        """In place of the cache's own method."""
        self._next = self._pasts[layer]
        return keys, values

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention or self._next is None:
            return func(*args, **(kwargs or {}))
        past, self._next = self._next, None
        return _attention(past, *args, **(kwargs or {}))


def _attention(
    past: tuple[Tensor, Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What ``scaled_dot_product_attention`` gives for ``past`` followed by ``key`` and ``value``."""
    rows, heads, columns, width = query.shape
    before = past[0].shape[2]
    whole = before + key.shape[2]
    if dropout_p or is_causal or (attn_mask is not None and attn_mask.shape[-1] != whole):
        raise ValueError(f"attention over {whole} columns with dropout, or without a mask of all of them")
    # The repeated keys of the pass itself are few columns.
    old = _grouped(query, past[0].shape[1]) @ past[0].mT
    new = _grouped(query, key.shape[1]) @ key.mT
    scores = torch.cat([old.view(rows, heads, columns, before), new.view(rows, heads, columns, -1)], dim=-1)
    scores = scores * (width**-0.5 if scale is None else scale)
    if attn_mask is not None:
        visible = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if visible else scores + attn_mask
    wide = torch.promote_types(scores.dtype, torch.float32)
    shares = scores.softmax(-1, dtype=wide).to(query.dtype)
    of_past, of_new = shares.split([before, whole - before], dim=-1)
    joined = (_grouped(of_past, past[1].shape[1]) @ past[1]).view(rows, heads, columns, -1)
    return joined + (_grouped(of_new, value.shape[1]) @ value).view(rows, heads, columns, -1)


def _grouped(of_heads: Tensor, shared: int) -> Tensor:
    """(rows, heads, columns, width) with the columns of all heads that share a key in one matrix."""
    rows, _, _, width = of_heads.shape
    return of_heads.reshape(rows, shared, -1, width)
