"""Prefixes that a small network makes, for each prompt, of what is known about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import torch
from torch import Tensor, nn

from lampbench.adapters._prefix import Prefix, embedding_of, one_each, places_checked
from lampbench.adapters._spec import AdapterSpec, EvaluatedBank, SoloAdapter, State, TensorBank, master_dtype
from lampbench.backbone import Adapter, TransformersBackbone
from lampbench.core import InputError

_WEIGHTS = "prefix_network.safetensors"


class PrefixNetwork(Protocol):
    """A network as a function of its parameters; a frozen dataclass of its sizes."""

    @property
    def length(self) -> int:
        """How many vectors it makes for a prompt."""

    def shapes(self, width: int) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of its parameters, for a backbone whose embeddings have ``width`` numbers."""

    def fresh(self, width: int, seed: int) -> State:
        """Untrained parameters, float32."""

    def __call__(self, parameters: Mapping[str, Tensor], given: Tensor) -> Tensor:
        """The prefixes of some prompts, shape (prompts, length, width).

        Args:
            parameters: By name.
            given: What is known about each prompt, shape (prompts, …). Rows of zeros at the end must not matter.
        """


@dataclass(frozen=True)
class NetworkPrefixSpec(AdapterSpec):
    """A prefix for each prompt, made by one network for all users, which is what trains.

    In training it depends on what the job gives with each example (``TrainingJob.given``); to answer, call ``vectors``.

    Attributes:
        network: Makes it.
    """

    network: PrefixNetwork

    def fresh(self, backbone: TransformersBackbone, seed: int) -> State:
        """The network's untrained parameters."""
        state = self.network.fresh(self._width(backbone), seed)
        return {name: tensor.to(master_dtype(backbone)) for name, tensor in state.items()}

    @torch.no_grad()
    def vectors(self, backbone: TransformersBackbone, state: State, given: Sequence[Tensor]) -> Tensor:
        """The prefixes of prompts, shape (prompts, length, width); each is computed alone."""
        parameters = {name: tensor.to(backbone.device) for name, tensor in state.items()}
        device, dtype = backbone.device, master_dtype(backbone)
        made = torch.empty(len(given), self.network.length, self._width(backbone), dtype=dtype, device=device)
        for number, own in enumerate(given):
            made[number] = self.network(parameters, own.to(device, dtype).unsqueeze(0))[0]
        return made

    def bank(self, backbone: TransformersBackbone, slots: int) -> _NetworkBank:
        """The parameters of one network; raises ValueError for more than one."""
        if slots != 1:
            raise ValueError(f"a network makes the prefixes of all users; expected one job, found {slots}")
        embedding = places_checked(backbone, self.network.length)
        return _NetworkBank(self.network, self._shapes(backbone), embedding, master_dtype(backbone), backbone.device)

    @contextmanager
    def alone(self, backbone: TransformersBackbone, start: State) -> Iterator[SoloAdapter]:
        """The network's parameters."""
        yield _LoneNetwork(self.network, start, places_checked(backbone, self.network.length), backbone.device)

    def frozen(
        self, backbone: TransformersBackbone, states: Sequence[State], users: Sequence[int] | None = None
    ) -> NoReturn:
        """Not possible: a prefix depends on the prompt; raises ValueError."""
        raise ValueError("a network's prefix depends on the prompt; call vectors")

    def parameter_count(self, backbone: TransformersBackbone) -> int:
        """Of the network."""
        return sum(math.prod(shape) for shape in self._shapes(backbone).values())

    def constant_layers(self, backbone: TransformersBackbone) -> int:
        """None: what goes into the first layer changes."""
        return 0

    def save(self, state: State, folder: Path, backbone: TransformersBackbone) -> None:
        """Write ``prefix_network.safetensors``."""
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / _WEIGHTS)

    def load(self, folder: Path, backbone: TransformersBackbone) -> State:
        """Read that file."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path, expected = folder / _WEIGHTS, dict(self._shapes(backbone))
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not a file of a saved network: {error}") from error
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if shapes != expected:
            raise InputError(f"{path}: not this network: expected {expected}; found {shapes}")
        return {name: found[name].to(master_dtype(backbone)) for name in expected}

    def _width(self, backbone: TransformersBackbone) -> int:
        return embedding_of(backbone).weight.shape[1]

    def _shapes(self, backbone: TransformersBackbone) -> Mapping[str, tuple[int, ...]]:
        return self.network.shapes(self._width(backbone))


class _NetworkBank(TensorBank):
    """One network, in the only slot."""

    def __init__(
        self,
        network: PrefixNetwork,
        shapes: Mapping[str, tuple[int, ...]],
        embedding: nn.Module,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        super().__init__(shapes, 1, dtype, device)
        self._network = network
        self._embedding = embedding

    def evaluated(self) -> EvaluatedBank:
        """The network at its present parameters."""
        own = {name: parameter[0] for name, parameter in self.parameters.items()}
        dtype = next(iter(own.values())).dtype

        def informed(slots: Tensor, given: Tensor) -> Adapter:
            # Evaluated for each pass, so that each pass can have a backward of its own.
            return one_each(self._embedding, self._network(own, given.to(dtype)))

        return EvaluatedBank(_uninformed, informed=informed)


class _LoneNetwork(SoloAdapter):
    """The network's parameters."""

    def __init__(self, network: PrefixNetwork, start: State, embedding: nn.Module, device: str) -> None:
        self._network = network
        self._embedding = embedding
        self._own = {name: nn.Parameter(tensor.detach().clone().to(device)) for name, tensor in start.items()}

    def parameters(self) -> list[nn.Parameter]:
        return list(self._own.values())

    def adapter(self, dropout: Tensor | None = None) -> NoReturn:
        _uninformed()

    def informed(self, given: Tensor, dropout: Tensor | None = None) -> Prefix:
        dtype = next(iter(self._own.values())).dtype
        return one_each(self._embedding, self._network(self._own, given.to(dtype)))

    def state(self) -> State:
        return {name: parameter.detach().cpu().clone() for name, parameter in self._own.items()}


def _uninformed(*_: object) -> NoReturn:
    raise ValueError("a network makes a prefix of what is given with an example; the job gives nothing")
