"""Snapshots of a long training, so that an interruption loses a minute and not the whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from lampbench.core import InputError

if TYPE_CHECKING:
    from lampbench.adapters._optimizer import StackedAdamW
    from lampbench.adapters._spec import Bank

_FILE = "training.safetensors"
_SECONDS = 60.0


@dataclass
class Snapshots:
    """Keeps the state of one job's training from time to time.

    Attributes:
        found: The folder of an earlier snapshot, where there is one.
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

        path = self.found / _FILE
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
        save_file(tensors, folder / _FILE, {"about": self.about})


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
