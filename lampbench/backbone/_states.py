"""Hidden states of prompts, without an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.backbone._backbone import TransformersBackbone, by_length
from lampbench.backbone._decode import keep_logits
from lampbench.backbone._encode import left_pad
from lampbench.backbone._partial import layers_left_out
from lampbench.core import LampBenchError


@torch.inference_mode()
def last_states(backbone: TransformersBackbone, rows: Sequence[Sequence[int]], layers: Sequence[int]) -> Tensor:
    """The residual stream at each row's last token, after each of ``layers``; nothing above them is computed.

    Rows run in batches of the backbone's batch size, padded on the left, and do not depend on each other.

    Args:
        backbone: The model, without adapters.
        rows: Token ids of each prompt.
        layers: Decoder layers, 0-based, ascending.

    Returns:
        Shape (rows, layers, width), float32, on the CPU.

    Raises:
        LampBenchError: A state is no number.
    """
    states = torch.empty(len(rows), len(layers), backbone.shape.width)
    above = range(layers[-1] + 1, backbone.shape.layers)
    for batch in by_length(rows, backbone.batch_size):
        with ExitStack() as stack:
            stack.enter_context(layers_left_out(backbone.layers, above, in_tuple=backbone.layers_return_tuples))
            found = [stack.enter_context(_last_column(backbone.layers[layer])) for layer in layers]
            _forward(backbone, [rows[number] for number in batch])
        states[batch] = torch.stack([column for (column,) in found], dim=1).cpu()
    if not states.isfinite().all():
        raise LampBenchError(
            "hidden states are no numbers (NaN or infinite): the weights are damaged, or float16 overflows (take "
            "bfloat16 or float32)"
        )
    return states


@contextmanager
def _last_column(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what ``layer`` returns at the last column; a copy, so that no other column stays in memory."""
    found: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        found.append(hidden[:, -1].to(torch.float32, copy=True))

    handle = layer.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def _forward(backbone: TransformersBackbone, rows: Sequence[Sequence[int]]) -> None:
    ids, mask = (torch.tensor(part, device=backbone.model.device) for part in left_pad(rows, backbone.pad))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    backbone.usage.prompt_tokens += int(mask.sum())
    backbone.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
        **keep_logits(backbone.model, 1),
    )
