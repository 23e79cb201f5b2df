"""How an adapter reaches into a running backbone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass
class Window:
    """Which columns the current forward pass computes, and where each row's prompt lies.

    The backbone updates it before every pass: the whole prompt at prefill (``offset`` 0), then one
    column a pass while decoding.

    Attributes:
        starts: First column of each row's prompt, shape (rows,); columns before it are padding.
        ends: The column after each row's prompt, shape (rows,).
        rows: The number of each row's prompt among those that the caller gave, shape (rows,): what
            an adapter a row looks its user up by.
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

    def attach(self, layers: nn.ModuleList, window: Window) -> AbstractContextManager[None]:
        """Act on the decoder ``layers`` inside the ``with`` block; leave no trace after it."""
