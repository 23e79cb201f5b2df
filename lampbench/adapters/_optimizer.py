"""AdamW over stacked users: every user's slice moves as if an optimizer of its own moved it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_EPSILON_OF_CLIP = 1e-6


class StackedAdamW(torch.optim.Optimizer):
    """AdamW on tensors whose leading dimension is over users, with a clip, step count and rate a user.

    Only active users move: another's parameters, moments and count stay as they are, to the bit. The
    arithmetic is that of ``torch.optim.AdamW`` and ``torch.nn.utils.clip_grad_norm_``.

    Its parameter group says under ``users`` how many slices each tensor has, so that whoever counts
    parameters can count one user's.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        slots: int,
        *,
        weight_decay: float,
        clip: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"weight_decay": weight_decay, "betas": betas, "eps": eps, "users": slots})
        self.clip = clip
        for parameter in parameters:
            self.state[parameter] = {"mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        self.counts = torch.zeros(slots, dtype=torch.int64)

    def restart(self, slot: int) -> None:
        """A new user begins in ``slot``: no momentum, no steps."""
        for moments in self.state.values():
            moments["mean"][slot] = 0
            moments["square"][slot] = 0
        self.counts[slot] = 0

    @torch.no_grad()
    def step(self, active: Sequence[int], rates: Sequence[float]) -> None:  # type: ignore[override]
        """Move the slots ``active``, each at its own learning rate."""
        group: dict[str, Any] = self.param_groups[0]
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        beta1, beta2 = group["betas"]
        self.counts[list(active)] += 1
        counts = self.counts[list(active)].to(torch.float64)
        learning = torch.tensor(rates, dtype=torch.float64)
        like = parameters[0]
        users = torch.tensor(active, device=like.device)
        everyone = list(active) == list(range(len(like)))
        decay = (1 - learning * group["weight_decay"]).to(like)
        size = (learning / (1 - beta1**counts)).to(like)
        root = (1 - beta2**counts).sqrt().to(like)
        shrink = _clip_factor([p.grad for p in parameters], self.clip)[users]
        for parameter in parameters:
            shape = (-1, *[1] * (parameter.dim() - 1))
            gradient = (parameter.grad if everyone else parameter.grad.index_select(0, users)) * shrink.view(shape)
            own = [parameter, self.state[parameter]["mean"], self.state[parameter]["square"]]
            values, mean, square = own if everyone else [tensor.index_select(0, users) for tensor in own]
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            values.mul_(decay.view(shape))
            denominator = square.sqrt().div_(root.view(shape)).add_(group["eps"])
            values.sub_(mean.div(denominator).mul_(size.view(shape)))
            if not everyone:
                for tensor, moved in zip(own, (values, mean, square), strict=True):
                    tensor.index_copy_(0, users, moved)


def _clip_factor(gradients: Sequence[Tensor], clip: float) -> Tensor:
    """What each user's gradient is multiplied by, shape (users,): its own norm decides."""
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    total: Tensor = torch.linalg.vector_norm(norms, dim=0)
    return (clip / (total + _EPSILON_OF_CLIP)).clamp(max=1.0)
