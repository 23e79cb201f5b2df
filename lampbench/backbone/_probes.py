"""What a model lets a batch do without a change of any row's logits: found by trying it once on made-up rows."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from lampbench.backbone._beginnings import Beginning
from lampbench.backbone._families import rotary_switch
from lampbench.backbone._pass import DecodingPass
from lampbench.backbone._shared import SharedReading

# Names in configs of how far, or within which part of a text, a token sees others.
_WINDOWS = re.compile(r"(.*_)?(window|window_size|chunk_size)|attention_types")


@torch.inference_mode()
def padding_changes_nothing(model: Any, pad: int) -> bool:
    """Whether a short row gets the same logits, now and one token later, beside a long one as alone."""
    short, long = _text(model, 5), _text(model, 12)
    found = []
    for rows in ([short], [short, long]):
        batch = DecodingPass(model, rows, pad, range(len(rows)))
        following = torch.full((len(rows), 1), short[0], device=model.device)
        found.append(torch.stack([batch.prefill()[0], batch.feed(following)[0, -1]]))
    return alike(found[1], found[0])


@torch.inference_mode()
def leaving_changes_nothing(model: Any, pad: int) -> bool:
    """Whether a row gets the same logits as alone when another has left its batch."""
    stays = _text(model, 8)
    batch = DecodingPass(model, [stays[::-1], stays], pad, range(2))
    batch.prefill()
    batch.keep([1])
    found = batch.feed(_column(model, stays[:1]))[:, -1]
    return alike(found, _alone(model, pad, [[*stays, stays[0]]]))


@torch.inference_mode()
def joining_changes_nothing(model: Any, pad: int) -> bool:
    """Whether rows get the same logits as alone when others have left their batch and they join another.

    Not tried where the cache is more than keys and values, or where everything is read again at some length.
    """
    stays, leaves, comes = _text(model, 5), _text(model, 12), _text(model, 8)
    batch = DecodingPass(model, [leaves, stays], pad, range(2))
    batch.prefill()
    if not batch.is_plain:
        return False
    batch.feed(_column(model, [stays[0]] * 2))
    batch.keep([1])
    batch.make_room()
    other = DecodingPass(model, [comes], pad, [2])
    other.prefill()
    batch.join(other)
    found = batch.feed(_column(model, [stays[1], comes[1]]))[:, -1]
    return alike(found, _alone(model, pad, [[*stays, *stays[:2]], [*comes, comes[1]]]))


@torch.inference_mode()
def sharing_changes_nothing(model: Any, pad: int) -> bool:
    """Whether rows get the same logits when their beginning is read once for all of them.

    Not tried where tokens see a part of a text only: between a beginning and the rest there is padding for a while.
    """
    config = model.config.get_text_config()
    if rotary_switch(model.config) is not None or any(
        value for name, value in vars(config).items() if _WINDOWS.fullmatch(name)
    ):
        return False
    first = _text(model, 6)
    rows = [[*first, *first[2:4]], [*first, *_text(model, 9)[1:]], _text(model, 4)[::-1]]
    whole = DecodingPass(model, [first], pad, [0])
    whole.prefill()
    if not whole.is_plain:
        return False
    before = SharedReading(model, rows, pad, [Beginning((0, 1), 6)]).before(range(3), whole.window)
    batch = DecodingPass(model, rows, pad, range(3), before=before)
    now = batch.prefill()
    found = torch.cat([now, batch.feed(_column(model, first[:3]))[:, -1]])
    longer = [[*row, token] for row, token in zip(rows, first, strict=False)]
    return alike(found, _alone(model, pad, [*rows, *longer]))


def alike(found: Tensor, expected: Tensor) -> bool:
    """Whether two computations of the same logits differ by rounding alone.

    Where something that counts is left out, or added, they differ by much more.
    """
    # For float64, too: some models compute parts in float32.
    allowed = 1e-3 if torch.finfo(expected.dtype).bits >= 32 else 0.1
    scale = (expected - expected.mean(-1, keepdim=True)).float().norm()
    return bool((found - expected).float().norm() <= allowed * scale)


def _text(model: Any, length: int) -> list[int]:
    tokens = min(1000, model.get_output_embeddings().weight.shape[0])
    return [(11 * (place + 3) ** 2 + 7) % tokens for place in range(length)]


def _column(model: Any, tokens: list[int]) -> Tensor:
    return torch.tensor(tokens, device=model.device).unsqueeze(-1)


def _alone(model: Any, pad: int, rows: list[list[int]]) -> Tensor:
    return torch.cat([DecodingPass(model, [row], pad, [0]).prefill() for row in rows])
