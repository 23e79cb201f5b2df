"""Forward passes that leave out what is known already, or what is not needed.

Decoder layers are reached through transformers' own forward, so masks, rotary positions and logit
scaling stay the model's business; nothing here depends on the model's type.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# What only ever sees one column at a time, in every decoder that names its parts as Llama does; keys
# and values must be computed everywhere.
_COLUMNWISE = ("q_proj", "o_proj", "mlp")


class _StandIn(nn.Module):
    """Takes a decoder layer's place and computes nothing."""

    def __init__(self, layer: nn.Module, hidden: Tensor | None, *, in_tuple: int) -> None:
        super().__init__()
        # Past nn.Module's registration: the layer is only asked for its plain attributes.
        self.__dict__["_layer"] = layer
        self._hidden = hidden
        self._in_tuple = in_tuple

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = hidden_states if self._hidden is None else self._hidden
        return (given, *[None] * (self._in_tuple - 1)) if self._in_tuple else given

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"], name)


@contextmanager
def layers_left_out(
    layers: nn.ModuleList, which: Sequence[int], *, in_tuple: int, output: Tensor | None = None
) -> Iterator[None]:
    """Compute no layer of ``which``; the last of them gives ``output``, if given.

    Args:
        layers: All decoder layers.
        which: Layer numbers, ascending.
        in_tuple: How long the tuples are that the model's layers return; 0 if they return hidden states alone.
        output: Hidden states, shape (rows, columns, width).
    """
    kept = {number: layers[number] for number in which}
    for number in which:
        hidden = output if number == which[-1] else None
        layers[number] = _StandIn(kept[number], hidden, in_tuple=in_tuple)
    try:
        yield
    finally:
        for number, layer in kept.items():
            layers[number] = layer


@contextmanager
def layer_output(layer: nn.Module, part: Callable[[Tensor], Tensor] = lambda hidden: hidden) -> Iterator[list[Tensor]]:
    """Collect what ``layer`` returns, or ``part`` of it, before any adapter attached later changes it."""
    found: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        found.append(part(output[0] if isinstance(output, tuple) else output))

    with layer.register_forward_hook(keep):
        yield found


@contextmanager
def only_columns(layer: nn.Module, rows: Tensor, columns: Tensor, but: Collection[nn.Module] = ()) -> Iterator[None]:
    """Compute the columnwise parts of ``layer`` at the given places alone; other places get zeros.

    Exact as long as nothing after ``layer`` reads another place.

    Args:
        layer: A decoder layer.
        rows: Row of each place, shape (places,).
        columns: Column of each place, shape (places,).
        but: Modules that must see every column (an adapter acts there).
    """
    kept_whole = {id(module) for module in but}
    with ExitStack() as stack:
        for name, module in layer.named_modules():
            inside = {id(part) for part in module.modules()}
            if name.rpartition(".")[2] in _COLUMNWISE and not inside & kept_whole:
                stack.enter_context(_narrowed(module, rows, columns))
        yield


@contextmanager
def only_inputs(module: nn.Module, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Give ``module`` the given places of its input alone, as one row: its output is (1, places, …)."""

    def before(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (arguments[0][rows, columns].unsqueeze(0), *arguments[1:])

    with module.register_forward_pre_hook(before):
        yield


@contextmanager
def one_logit(model: Any) -> Iterator[None]:
    """Compute what a model predicts after one token alone, since nobody reads it.

    In transformers 4 not every model has a ``get_decoder`` that would leave it out.
    """
    first = torch.zeros(1, dtype=torch.long, device=model.device)
    with only_inputs(model.get_output_embeddings(), first, first):
        yield


@contextmanager
def _narrowed(module: nn.Module, rows: Tensor, columns: Tensor) -> Iterator[None]:
    shape: list[torch.Size] = []

    def remember(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        shape.append(arguments[0].shape)

    def spread(_: nn.Module, arguments: Any, output: Any) -> Any:
        size = shape.pop()
        # A mixture of experts returns its routing beside the values.
        values = output[0] if isinstance(output, tuple) else output
        whole = values.new_zeros(size[0], size[1], values.shape[-1]).index_put((rows, columns), values[0])
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    with (
        module.register_forward_pre_hook(remember),
        only_inputs(module, rows, columns),
        module.register_forward_hook(spread),
    ):
        yield


def key_value_cache(pairs: Sequence[tuple[Tensor, Tensor]] = ()) -> Any:
    """A cache of transformers that holds ``pairs`` of keys and values, one per layer from the first on.

    Each of shape (rows, key-value heads, columns, head width). Later passes append, out of place.
    """
    from transformers import DynamicCache

    cache = DynamicCache()
    for number, (keys, values) in enumerate(pairs):
        cache.update(keys, values, number)
    return cache


def keys_and_values(cache: Any, layer: int) -> tuple[Tensor, Tensor]:
    """What ``cache`` holds for ``layer``; both spellings of transformers."""
    if hasattr(cache, "layers"):
        return cache.layers[layer].keys, cache.layers[layer].values
    return cache.key_cache[layer], cache.value_cache[layer]


def all_keys_and_values(cache: Any, layers: int, columns: int) -> list[tuple[Tensor, Tensor]]:
    """What ``cache`` holds for every layer.

    Raises:
        ValueError: It holds anything but keys and values of ``columns`` columns for each of ``layers`` layers, such
            as the state of a linear attention: what is before a column is not all that the column needs.
    """
    held = cache.layers if hasattr(cache, "layers") else cache.key_cache
    if len(held) != layers:
        raise ValueError(f"keys and values of {len(held)} layers, where the decoder has {layers}")
    pairs = [keys_and_values(cache, number) for number in range(layers)]
    states = {name for part in held for name, own in getattr(part, "__dict__", {}).items() if isinstance(own, Tensor)}
    if states - {"keys", "values"} or any(part.shape[2] != columns for pair in pairs for part in pair):
        raise ValueError("more, or other, than keys and values of each column")
    return pairs
