"""Which token positions an intervention acts on."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from lampbench.backbone import Window

_FORMAT = re.compile(r"(?:f(\d+))?(?:\+?l(\d+))?")


@dataclass(frozen=True, slots=True)
class Positions:
    """Every token, or the first and last tokens of the prompt.

    Written as in pyreft: ``all`` (prompt and generated tokens), ``l8`` (the prompt's last 8),
    ``f4`` (its first 4), ``f4+l4``. Prompt positions act at prefill only; the KV cache carries the
    effect on.
    """

    first: int = 0
    last: int = 0
    everything: bool = False

    @classmethod
    def parse(cls, text: str) -> Positions:
        """Read ``all``, ``f<n>``, ``l<m>`` or ``f<n>+l<m>``; raises ValueError otherwise."""
        if text == "all":
            return cls(everything=True)
        match = _FORMAT.fullmatch(text)
        first, last = (int(part or 0) for part in match.groups()) if match else (0, 0)
        if first + last == 0 or text.startswith("+"):
            raise ValueError(f"positions are 'all', 'f<n>', 'l<m>' or 'f<n>+l<m>' (such as f4+l4), found {text!r}")
        return cls(first, last)

    def mask(self, window: Window, columns: int) -> Tensor | None:
        """Boolean, shape (rows, columns of this pass); None means every position."""
        if self.everything:
            return None
        column = torch.arange(window.offset, window.offset + columns, device=window.starts.device)
        starts, ends = window.starts.unsqueeze(1), window.ends.unsqueeze(1)
        chosen = (column < starts + self.first) | (column >= ends - self.last)
        return chosen & (column >= starts) & (column < ends)
