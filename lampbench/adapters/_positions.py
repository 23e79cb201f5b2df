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

    def __str__(self) -> str:
        if self.everything:
            return "all"
        return "+".join(f"{name}{count}" for name, count in (("f", self.first), ("l", self.last)) if count)

    @property
    def suffix(self) -> int | None:
        """How many of the prompt's last tokens hold all positions; None where others are among them."""
        return self.last if self.last and not self.first and not self.everything else None

    def places(self, window: Window, columns: int) -> tuple[Tensor, Tensor]:
        """The pass's columns that hold the positions, the same number for every row.

        Not for ``all``, which needs no choosing.

        Args:
            window: Where the prompts lie.
            columns: Columns of this pass.

        Returns:
            Column of each position within the pass, and whether the row has that position in this
            pass (a short prompt has fewer), both of shape (rows, first + last).
        """
        device = window.starts.device
        starts, ends = window.starts.unsqueeze(1), window.ends.unsqueeze(1)
        head = starts + torch.arange(self.first, device=device)
        tail = ends - self.last + torch.arange(self.last, device=device)
        # A prompt shorter than first + last has each of its tokens once.
        once = torch.cat([head < ends, tail >= starts + self.first], dim=1)
        place = torch.cat([head, tail], dim=1) - window.offset
        inside = (place >= 0) & (place < columns)
        return place.clamp(0, columns - 1), once & inside
