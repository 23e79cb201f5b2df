"""AdamW over stacked users, and snapshots of its state.

Every user's slice moves as if an optimizer of its own moved it. Snapshots of a long training let an
interruption lose a minute and not the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.adapters._spec import Bank
from lampbench.core import InputError

_SNAPSHOT = "training.safetensors"
_SECONDS = 60.0
# As torch.optim.AdamW and clip_grad_norm_ have them.
_BETAS, _EPSILON, _EPSILON_OF_CLIP = (0.9, 0.999), 1e-8, 1e-6


class StackedAdamW(torch.optim.Optimizer):
    """AdamW on tensors whose leading dimension is over users, with a clip, step count and rate per user.

    Only active users move: the parameters, moments and counts of others do not change at all. The
    arithmetic is that of ``torch.optim.AdamW`` and ``torch.nn.utils.clip_grad_norm_``.

    Its parameter group says under ``users`` how many slices each tensor has, so that
    the parameters of one user can be counted.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        slots: int,
        *,
        weight_decay: float,
        clip: float,
    ) -> None:
        super().__init__(parameters, {"weight_decay": weight_decay, "users": slots})
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
        beta1, beta2 = _BETAS
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
            denominator = square.sqrt().div_(root.view(shape)).add_(_EPSILON)
            values.sub_(mean.div(denominator).mul_(size.view(shape)))
            if not everyone:
                for tensor, moved in zip(own, (values, mean, square), strict=True):
                    tensor.index_copy_(0, users, moved)


def _clip_factor(gradients: Sequence[Tensor], clip: float) -> Tensor:
    """What each user's gradient is multiplied by, shape (users,): its own norm decides."""
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    total: Tensor = torch.linalg.vector_norm(norms, dim=0)
    return (clip / (total + _EPSILON_OF_CLIP)).clamp(max=1.0)


@dataclass
class Snapshots:
    """Keeps the state of one job's training from time to time.

    Attributes:
        found: The folder of an earlier snapshot, if any.
        keep: Called with a function that writes a snapshot into an empty folder.
        about: What is trained; a snapshot of something else is not used.
        seconds: Between two snapshots.
    """

    found: Path | None
    keep: Callable[[Callable[[Path], None]], None]
    about: str
    seconds: float = _SECONDS
    _last: float = field(default_factory=time.monotonic)

    def offer(self, banks: Sequence[Bank], optimizer: StackedAdamW) -> None:
        """Keep a snapshot, if the last is old enough."""
        if time.monotonic() - self._last < self.seconds:
            return
        self.keep(lambda folder: self._write(folder, banks, optimizer))
        self._last = time.monotonic()

    def restore(self, banks: Sequence[Bank], optimizer: StackedAdamW, say: Callable[[str], None]) -> int:
        """Put the found snapshot into ``banks`` and ``optimizer``; the steps that it had done.

        A snapshot of another training (a stage may train more than once) is left alone: 0 steps.

        Raises:
            InputError: It is damaged.
        """
        if self.found is None:
            return 0
        from safetensors import SafetensorError, safe_open

        path = self.found / _SNAPSHOT
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: a damaged snapshot ({error}); --force starts the run over") from error
        if about.get("about") != self.about:
            say("the last snapshot is of another training; this one starts at its beginning")
            return 0
        for name, tensor in _tensors(banks, optimizer).items():
            tensor.detach().copy_(kept[name])
        return int(optimizer.counts[0])

    def _write(self, folder: Path, banks: Sequence[Bank], optimizer: StackedAdamW) -> None:
        from safetensors.torch import save_file

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(banks, optimizer).items()}
        save_file(tensors, folder / _SNAPSHOT, {"about": self.about})


def _tensors(banks: Sequence[Bank], optimizer: StackedAdamW) -> dict[str, Tensor]:
    """Everything that training moves, by a name of its own."""
    tensors: dict[str, Tensor] = {"counts": optimizer.counts}
    for number, bank in enumerate(banks):
        for name, parameter in bank.parameters.items():
            tensors[f"{number}.{name}"] = parameter
            for moment, value in optimizer.state[parameter].items():
                tensors[f"{number}.{name}.{moment}"] = value
        tensors |= {f"{number}.{name}": tensor for name, tensor in bank.constants.items()}
    return tensors
