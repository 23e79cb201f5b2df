"""Decoding against a second model (Li et al., ACL 2023; as CoPe uses it for personalization)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Contrast:
    """Prefers what one model finds more likely than another does.

    A choice is kept if the first model gives it at least ``plausible`` times the probability of its best one. Its
    score is ``log p - alpha log q``: p is the first model's probability, normalized over the kept choices, and q the
    other model's probability.

    Attributes:
        alpha: The weight of the other model, at least 0.
        plausible: Above 0 and at most 1.
    """

    alpha: float
    plausible: float

    def scores(self, own: Tensor, other: Tensor) -> Tensor:
        """The score of every choice, in float32 at least; minus infinity for one that is not kept.

        Args:
            own: The first model's logits, shape (rows, choices).
            other: The other model's.
        """
        exact = torch.promote_types(own.dtype, torch.float32)
        log_p, log_q = own.to(exact).log_softmax(-1), other.to(exact).log_softmax(-1)
        kept = log_p >= log_p.amax(-1, keepdim=True) + math.log(self.plausible)
        normalized = log_p.masked_fill(~kept, -torch.inf).log_softmax(-1)
        # If both give a choice no probability at all, the difference would be NaN.
        return torch.where(kept, normalized - self.alpha * log_q, -torch.inf)
