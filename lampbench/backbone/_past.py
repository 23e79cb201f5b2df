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
from torch.autograd.function import once_differentiable
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
    whole = past[0].shape[2] + key.shape[2]
    if dropout_p or is_causal or (attn_mask is not None and attn_mask.shape[-1] != whole):
        raise ValueError(f"attention over {whole} columns with dropout, or without a mask of all of them")
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    joined: Tensor = _PastAttention.apply(query, key, value, *past, attn_mask, factor)  # type: ignore[no-untyped-call]
    return joined


class _PastAttention(torch.autograd.Function):
    """Attention over a past and what follows it.

    The scores are the largest tensors of a pass with a long past. Scale and mask change them in place, of all that is
    made of them the shares alone are kept, and gradients are computed for what follows the past alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
        mask: Tensor | None,
        scale: float,
    ) -> Tensor:
        rows, heads, columns, _ = query.shape
        before = past_keys.shape[2]
        # The repeated keys of the pass itself are few columns.
        old = _grouped(query, past_keys.shape[1]) @ past_keys.mT
        new = _grouped(query, key.shape[1]) @ key.mT
        scores = torch.cat([old.view(rows, heads, columns, before), new.view(rows, heads, columns, -1)], dim=-1)
        scores *= scale
        if mask is not None and mask.dtype == torch.bool:
            scores.masked_fill_(~mask, -torch.inf)
        elif mask is not None:
            scores = scores + mask
        exact = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        shares = exact.to(query.dtype)
        of_past, of_new = shares.split([before, key.shape[2]], dim=-1)
        joined = (_grouped(of_past, past_values.shape[1]) @ past_values).view(rows, heads, columns, -1)
        joined += (_grouped(of_new, value.shape[1]) @ value).view(joined.shape)
        ctx.save_for_backward(query, key, value, past_keys, past_values, exact, shares)
        ctx.scale = scale
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, past_keys, past_values, exact, shares = ctx.saved_tensors
        (gradient,) = gradients
        rows, heads, columns, _ = query.shape
        before, after = past_keys.shape[2], key.shape[2]
        own = _grouped(gradient, value.shape[1])
        of_value = _grouped(shares[..., before:], value.shape[1]).mT @ own
        of_past = _grouped(gradient, past_values.shape[1]) @ past_values.mT
        of_new = own @ value.mT
        of_shares = torch.cat(
            [of_past.view(rows, heads, columns, before), of_new.view(rows, heads, columns, after)], -1
        )
        # Masked columns have a share of 0, and so no gradient.
        of_scores = torch.ops.aten._softmax_backward_data(of_shares.to(exact.dtype), exact, -1, exact.dtype)
        of_scores = of_scores.to(query.dtype)
        of_scores *= ctx.scale
        of_old, of_new = of_scores.split([before, after], dim=-1)
        of_query = (_grouped(of_old, past_keys.shape[1]) @ past_keys).view(query.shape)
        of_new = _grouped(of_new, key.shape[1])
        of_query += (of_new @ key).view(query.shape)
        of_key = (_grouped(query, key.shape[1]).mT @ of_new).mT
        return of_query, of_key, of_value, None, None, None, None


def _grouped(of_heads: Tensor, shared: int) -> Tensor:
    """(rows, heads, columns, width) with the columns of all heads that share a key in one matrix."""
    rows, _, _, width = of_heads.shape
    return of_heads.reshape(rows, shared, -1, width)
