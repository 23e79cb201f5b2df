"""What an adapter is, apart from any user's parameters, and what a stack of many users' parameters offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampbench.core import later

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lampbench.backbone import Adapter, TransformersBackbone
else:
    torch, nn = later("torch"), later("torch.nn")

# One user's parameters by name, detached: what is saved, loaded and stacked.
State = Mapping[str, "Tensor"]


class AdapterSpec(ABC):
    """The kind, place and size of an adapter; one spec makes every user's adapter.

    Specs are frozen dataclasses, such as ``LoraSpec`` and ``InterventionSpec``.
    """

    @abstractmethod
    def fresh(self, backbone: TransformersBackbone, seed: int) -> State:
        """Untrained parameters of one user."""

    def neutral(self, backbone: TransformersBackbone) -> State:
        """Parameters at which the adapter changes nothing.

        Raises:
            ValueError: There are none.
        """
        raise ValueError(f"{type(self).__name__} does not say at which parameters it changes nothing")

    @abstractmethod
    def bank(self, backbone: TransformersBackbone, slots: int) -> Bank:
        """Room for the parameters of ``slots`` users who train together."""

    @abstractmethod
    def alone(self, backbone: TransformersBackbone, start: State) -> AbstractContextManager[SoloAdapter]:
        """One user's adapter in its simplest trainable form, for the solo engine."""

    @abstractmethod
    def frozen(
        self, backbone: TransformersBackbone, states: Sequence[State], users: Sequence[int] | None = None
    ) -> Adapter:
        """Trained adapters that are not trained any further.

        Args:
            backbone: What they act on.
            states: The users' parameters.
            users: For each prompt, the number of its user in ``states``; without it, the one state
                acts on every prompt.
        """

    def per_user(self, backbone: TransformersBackbone, states: Mapping[str, State]) -> PerUser:
        """Trained adapters that are not trained any further, for what acts beneath others.

        Args:
            backbone: What they act on.
            states: User's id -> parameters. Rows of other users are left as they are, so ``neutral`` must be possible.
        """
        everyone = [*states.values(), self.neutral(backbone)]
        stacked = self.frozen(backbone, everyone, range(len(everyone)))
        return PerUser(stacked, {user: number for number, user in enumerate(states)}, self.adapted_modules(backbone))

    @abstractmethod
    def parameter_count(self, backbone: TransformersBackbone) -> int:
        """Trainable parameters of one user's adapter."""

    def held_count(self, backbone: TransformersBackbone) -> int:
        """Numbers of one user's adapter that are held while it trains, and that training does not move."""
        return 0

    @abstractmethod
    def constant_layers(self, backbone: TransformersBackbone) -> int:
        """How many of the first decoder layers give the same output whatever the adapter's parameters.

        The output of a layer is what it returns before an intervention changes it.
        """

    def adapted_modules(self, backbone: TransformersBackbone) -> Sequence[nn.Module]:
        """Modules inside decoder layers that the adapter acts on, and that must see every column."""
        return ()

    @property
    def suffix(self) -> int | None:
        """How many of a prompt's last tokens hold everything that the adapter changes directly, if so."""
        return None

    @abstractmethod
    def save(self, state: State, folder: Path, backbone: TransformersBackbone) -> None:
        """Write one user's parameters into a folder."""

    @abstractmethod
    def load(self, folder: Path, backbone: TransformersBackbone) -> State:
        """Read what ``save`` wrote; raises InputError for other files."""


@dataclass(frozen=True)
class PerUser:
    """Frozen adapters of one kind, a user's own on each row: made by ``AdapterSpec.per_user``.

    Attributes:
        stacked: All of them; the last one changes nothing.
        numbers: User's id -> number in ``stacked``.
        modules: What they act on inside decoder layers.
    """

    stacked: Adapter
    numbers: Mapping[str, int]
    modules: Sequence[nn.Module]

    def on(self, users: Sequence[str | None]) -> Adapter:
        """What acts on a pass whose row i belongs to ``users[i]``; on None, and on unknown users, nothing acts."""
        stacked: Any = self.stacked
        nobody = len(self.numbers)
        numbers = [nobody if user is None else self.numbers.get(user, nobody) for user in users]
        adapter: Adapter = replace(stacked, users=stacked.users.new_tensor(numbers))
        return adapter


def acting(adapters: Sequence[Adapter | PerUser], users: Sequence[str | None]) -> list[Adapter]:
    """The adapters of a pass whose row i belongs to ``users[i]``, or to no known user."""
    return [adapter.on(users) if isinstance(adapter, PerUser) else adapter for adapter in adapters]


class SoloAdapter(ABC):
    """One user's trainable adapter."""

    @abstractmethod
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that an optimizer trains."""

    @abstractmethod
    def adapter(self, dropout: Tensor | None = None) -> Adapter:
        """The adapter at its present parameters; gradients reach them.

        Args:
            dropout: In training, the key of each row's dropout masks, shape (rows,), int64.
        """

    def informed(self, given: Tensor, dropout: Tensor | None = None) -> Adapter:
        """The same, if something is given with each row's example: shape (rows, …).

        By default the adapter does not depend on it.
        """
        return self.adapter(dropout)

    @abstractmethod
    def state(self) -> State:
        """The present parameters, copied."""


class Bank(ABC):
    """The stacked parameters of the users who train together, one slot per user.

    Attributes:
        parameters: Leaves with a leading dimension of ``slots``, in float32 (float64 on a float64 backbone).
        constants: Further tensors per slot that training does not move.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, nn.Parameter] = {}
        self.constants: dict[str, Tensor] = {}

    @abstractmethod
    def put(self, slot: int, start: State) -> None:
        """Let a user begin in ``slot``, at ``start``."""

    @abstractmethod
    def take(self, slot: int) -> State:
        """The parameters in ``slot``, copied to the CPU."""

    @abstractmethod
    def evaluated(self) -> EvaluatedBank:
        """The bank at its present parameters, evaluated once for any number of passes."""


class TensorBank(Bank):
    """A bank of parameters that are what is saved, each by its own name.

    Args:
        shapes: Of one user's parameters.
        slots: Users who train together.
        dtype: Of the parameters.
        device: Where they are.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], slots: int, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.parameters[name] = nn.Parameter(torch.zeros(slots, *shape, dtype=dtype, device=device))

    def put(self, slot: int, start: State) -> None:
        """Copy ``start`` into the slot."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter[slot] = start[name].to(parameter)

    def take(self, slot: int) -> State:
        """A copy of the slot."""
        return {name: parameter[slot].detach().cpu().clone() for name, parameter in self.parameters.items()}


@dataclass(frozen=True)
class EvaluatedBank:
    """A bank at one step.

    Attributes:
        adapter: Called with slots and dropout keys, gives what acts on a pass whose row i belongs to
            ``slots[i]`` and draws its dropout masks from ``keys[i]`` (None: no dropout).
        backward: Called after the passes' own backward; carries gradients through what was evaluated once.
        informed: Called with slots and what is given with each row's example, shape (rows, …); None if the adapter
            does not depend on it.
    """

    adapter: Callable[[Tensor, Tensor | None], Adapter]
    backward: Callable[[], None] = lambda: None
    informed: Callable[[Tensor, Tensor], Adapter] | None = None

    def of_rows(self, slots: Tensor, keys: Tensor | None, given: Tensor | None) -> Adapter:
        """What acts on a pass."""
        if given is None or self.informed is None:
            return self.adapter(slots, keys)
        return self.informed(slots, given)


def differ(first: State, second: State) -> bool:
    """Whether two states of one spec differ by more than the rounding of taking them out of a bank."""
    pairs = ((tensor.cpu().double(), second[name].cpu().double()) for name, tensor in first.items())
    return not all(torch.allclose(own, other, rtol=1e-5, atol=1e-8) for own, other in pairs)


def exact(logits: Tensor) -> Tensor:
    """Logits in float32 at least: what a loss is computed from."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def master_dtype(backbone: TransformersBackbone) -> torch.dtype:
    """The dtype in which adapters are trained: float32, or float64 on a float64 backbone."""
    dtype = next(backbone.model.parameters()).dtype
    return torch.float64 if dtype == torch.float64 else torch.float32
