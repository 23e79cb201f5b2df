"""Keys and values of many rows: whether a cache is nothing else, rows that leave and join it, room for what follows.

Nothing here depends on a model's type; what a cache is, is seen from what it holds, in both versions of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from lampbench.backbone._partial import all_keys_and_values, key_value_cache, keys_and_values

# Columns that are reserved at a time.
_SPARE = 16


def holds_states(cache: Any) -> bool:
    """Whether a cache holds more than keys and values: a convolution's last inputs, or the state of a recurrence."""
    parts = [cache, *getattr(cache, "layers", ())]
    return any("state" in name and held is not None for part in parts for name, held in vars(part).items())


def as_cache(past: Any) -> Any:
    """A cache object; transformers 4.45 hands out tuples."""
    if not isinstance(past, tuple):
        return past
    from transformers import DynamicCache

    return DynamicCache.from_legacy_cache(past)


def is_plain(cache: Any, layers: int, columns: int) -> bool:
    """Whether a cache holds keys and values of ``columns`` columns for each of ``layers`` layers, and nothing else.

    A layer with a sliding window is none, even if nothing has left its window yet.
    """
    usual = key_value_cache()
    if type(cache) is not type(usual):
        return False
    kinds = {type(layer).__name__ for layer in getattr(cache, "layers", ())}
    try:
        all_keys_and_values(cache, layers, columns)
    except (ValueError, AttributeError):
        return False
    return kinds <= {"DynamicLayer"}


def pairs(cache: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values of every layer of a plain cache."""
    held = cache.layers if hasattr(cache, "layers") else cache.key_cache
    return (keys_and_values(cache, number) for number in range(len(held)))


def put(cache: Any, layer: int, keys: Tensor, values: Tensor) -> None:
    """Let a plain cache hold these for a layer."""
    if hasattr(cache, "layers"):
        cache.layers[layer].keys, cache.layers[layer].values = keys, values
    else:
        cache.key_cache[layer], cache.value_cache[layer] = keys, values


def cut_left(cache: Any, columns: int) -> None:
    """Forget the first so many columns of a plain cache."""
    for number, (keys, values) in enumerate(pairs(cache)):
        put(cache, number, keys[:, :, columns:], values[:, :, columns:])


def gather(cache: Any, columns: Tensor) -> None:
    """Keep the given columns of each row of a plain cache: ``columns`` has shape (rows, columns)."""
    index = columns[:, None, :, None]
    for number, held in enumerate(pairs(cache)):
        keys, values = (own.gather(2, index.expand(-1, own.shape[1], -1, own.shape[3])) for own in held)
        put(cache, number, keys, values)


def join(cache: Any, other: Any) -> None:
    """Add the rows of one plain cache to another; the narrower one gets columns of zeros on the left."""
    for number, (own, more) in enumerate(zip(pairs(cache), pairs(other), strict=True)):
        put(cache, number, *(_stacked(first, second) for first, second in zip(own, more, strict=True)))


def give_room(cache: Any) -> None:
    """Let a plain cache grow in place; transformers' own copies all that it holds for each new column.

    Does nothing in transformers 4, whose caches are not made of layers.
    """
    for layer in getattr(cache, "layers", ()):
        if not isinstance(getattr(layer.update, "__self__", None), _Room):
            layer.update = _Room(layer).update


class _Room:
    """Adds columns to a layer of a cache, in tensors that are wider than what they hold."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._reserved: list[Tensor | None] = [None, None]

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """All keys and values, with these at the end."""
        self._layer.keys = self._longer(0, self._layer.keys, keys)
        self._layer.values = self._longer(1, self._layer.values, values)
        return self._layer.keys, self._layer.values

    def _longer(self, which: int, held: Tensor, new: Tensor) -> Tensor:
        reserved = self._reserved[which]
        rows, heads, before, width = held.shape
        after = before + new.shape[2]
        if (
            reserved is None
            # Rows left or joined, so that the layer holds another tensor.
            or reserved.data_ptr() != held.data_ptr()
            or reserved.shape[0] != rows
            or reserved.shape[2] < after
        ):
            reserved = held.new_empty(rows, heads, after + _SPARE, width)
            reserved[:, :, :before] = held
            self._reserved[which] = reserved
        reserved[:, :, before:after] = new
        return reserved[:, :, :after]


def _stacked(first: Tensor, second: Tensor) -> Tensor:
    width = max(first.shape[2], second.shape[2])
    stacked = first.new_zeros(len(first) + len(second), first.shape[1], width, first.shape[3])
    stacked[: len(first), :, width - first.shape[2] :] = first
    stacked[len(first) :, :, width - second.shape[2] :] = second
    return stacked
