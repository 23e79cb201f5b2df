"""One user's LoRA in peft's own modules, for the solo engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.adapters._dropout import dropped
from lampbench.adapters._lora import AdaptedMap
from lampbench.adapters._spec import SoloAdapter, State
from lampbench.backbone import Adapter, PassWindow


class PeftLora(SoloAdapter):
    """peft's modules, with dropout from the user's own masks."""

    def __init__(self, places: Sequence[AdaptedMap], dropout: float, model: Any, start: State) -> None:
        self._modules = {place: model.get_submodule(place.name) for place in places}
        self._dropout = dropout
        for module in self._modules.values():
            module.lora_dropout["default"] = _KeyedDropout()
        with torch.no_grad():
            for name, parameter in self._named():
                parameter.copy_(start[name])

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self._named()]

    def adapter(self, dropout: Tensor | None = None) -> Adapter:
        return _AttachedPeft(self._modules, self._dropout, dropout)

    def state(self) -> State:
        return {name: parameter.detach().cpu().clone() for name, parameter in self._named()}

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (name, getattr(module, part)["default"].weight)
            for place, module in self._modules.items()
            for name, part in ((place.a, "lora_A"), (place.b, "lora_B"))
        ]


class _KeyedDropout(nn.Module):
    """Replaces peft's ``nn.Dropout``: drops what the user's keys say, and nothing without keys."""

    def __init__(self) -> None:
        super().__init__()
        self.drop: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.drop is None else self.drop(x)


@dataclass(frozen=True)
class _AttachedPeft:
    """peft's modules are in the model already; attaching only gives them the pass's dropout keys."""

    modules: Mapping[AdaptedMap, Any]
    dropout: float
    keys: Tensor | None

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: PassWindow) -> Iterator[None]:
        for place, module in self.modules.items():
            if self.dropout and self.keys is not None:
                module.lora_dropout["default"].drop = partial(
                    dropped, keys=self.keys, module=place.number, window=window, probability=self.dropout
                )
        try:
            yield
        finally:
            for module in self.modules.values():
                module.lora_dropout["default"].drop = None
