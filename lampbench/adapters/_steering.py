"""Steering: a vector per user, added to the hidden states of an answer's tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lampbench.adapters._intervention import after_layer
from lampbench.backbone import PassWindow


@dataclass(frozen=True)
class Steering:
    """Adds a prompt's own vector to the output of one decoder layer at every token of the answer.

    An ``lampbench.backbone.Adapter``.

    Attributes:
        layer: Number of the layer, 0-based.
        vectors: Shape (users, width).
        users: The user of each prompt, shape (prompts,).
        before: How many of the prompt's last tokens are steered as well.
    """

    layer: int
    vectors: Tensor
    users: Tensor
    before: int = 0

    @property
    def tail(self) -> int:
        """How many of a prompt's last tokens are treated by their distance from the end."""
        return self.before

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: PassWindow) -> Iterator[None]:
        """Steer the output of the layer inside the ``with`` block."""

        def steered(hidden: Tensor) -> Tensor:
            columns = torch.arange(window.offset, window.offset + hidden.shape[1], device=hidden.device)
            written = columns >= (window.ends - self.before).unsqueeze(1)
            own = self.vectors[self.users[window.rows]].unsqueeze(1)
            # Other tokens keep their exact hidden states.
            return torch.where(written.unsqueeze(-1), (hidden.to(own.dtype) + own).to(hidden.dtype), hidden)

        with layers[self.layer].register_forward_hook(after_layer(steered)):
            yield
