"""Settings that every method with a training stage has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lampbench.bases._presets import NAMED, presets_of
from lampbench.core import InputError, RunContext, protocols, setting

if TYPE_CHECKING:
    from lampbench.adapters import Recipe

# The preset of published settings.
PUBLISHED = "lamp"


@dataclass(frozen=True)
class TrainingConfig:
    """Optimizer settings; what is None is filled when a run is resolved.

    Attributes:
        published: Field -> value: the settings that were published for LaMP.
        chosen: Field -> value: the settings that were chosen here, because none were published.
        user_epochs_in: The field that holds the epochs over a user's history; None if nothing is trained per user.
    """

    published: ClassVar[Mapping[str, Any]] = {}
    chosen: ClassVar[Mapping[str, Any]] = {}
    user_epochs_in: ClassVar[str | None] = None

    preset: str = setting(
        "auto",
        "for what is not set: lamp (published), small-instruct, a protocol such as mini, or auto (what the protocol "
        "recommends)",
    )
    learning_rate: float | None = setting(None, "AdamW learning rate")
    weight_decay: float = setting(1e-2, "AdamW weight decay")
    warmup_ratio: float = setting(0.1, "part of the steps in which the learning rate rises")
    clip: float | None = setting(None, "largest gradient norm")
    batch_size: int | None = setting(None, "training examples per step")

    def __post_init__(self) -> None:
        self.above_zero("learning_rate", "clip")
        self.at_least(1, *(name for name in vars(self) if name.endswith(("rank", "epochs", "batch_size"))))
        self.at_least(0, "weight_decay")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio must be from 0 to 1, found {self.warmup_ratio}")

    def at_least(self, bound: int, *names: str) -> None:
        """Refuse these settings below ``bound``, unless they are None; raises ValueError."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}, found {value}")

    def above_zero(self, *names: str) -> None:
        """Refuse these settings at or below 0, unless they are None; raises ValueError."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, found {value}")

    @property
    def starts_elsewhere(self) -> bool:
        """Whether adapters change what the backbone computes before anything is learned."""
        return False

    def user_steps(self, items: int) -> int | None:
        """Optimizer steps of a user with so many history items; None if nothing is trained per user, or not yet filled.

        An adapter that tunes other numbers of examples per user overrides this.
        """
        epochs = getattr(self, self.user_epochs_in) if self.user_epochs_in else None
        return epochs * -(-items // self.batch_size) if epochs and self.batch_size else None

    def recipe(self, epochs: int | None) -> Recipe:
        """The recipe of a stage of ``epochs``; raises ValueError if a setting is still None."""
        from lampbench.adapters import Recipe

        if epochs is None or self.learning_rate is None or self.clip is None or self.batch_size is None:
            raise ValueError("some settings are None; let AdapterMethod.resolve fill them")
        return Recipe(epochs, self.learning_rate, self.weight_decay, self.warmup_ratio, self.clip, self.batch_size)


def filled(config: Any, context: RunContext) -> Any:
    """A ``TrainingConfig`` with its unset fields taken from the preset.

    ``auto`` is what the run's protocol recommends for the method on the run's model, or else the published settings;
    ``lamp`` is the published settings; any other name is a preset of ``NAMED``, or what the protocol of that name
    recommends. What neither sets is as published.

    Raises:
        InputError: There is no preset or protocol of that name, or it has nothing for the method.
        ValueError: A preset has a value for a field whose default is not None, so that the value would never be taken.
    """
    name = config.preset
    if name == "auto":
        name = context.protocol if context.recommended else PUBLISHED
    recommended = {} if name == PUBLISHED else _recommended(name, context)
    values = {**config.chosen, **config.published, **recommended}
    if never := [field.name for field in fields(config) if field.name in values and field.default is not None]:
        raise ValueError(f"presets can set only what is None by default, not {', '.join(never)}")
    open_fields = {field: value for field, value in values.items() if getattr(config, field) is None}
    return replace(config, preset=name, **open_fields)


def _recommended(name: str, context: RunContext) -> Mapping[str, Any]:
    if name == context.protocol and context.recommended:
        return context.recommended
    known = NAMED.get(name)
    if known is None and name in protocols().names():
        known = getattr(protocols().load(name), "recommended", None)
    if not (isinstance(known, Mapping) and context.method in known):
        known_names = ", ".join(["auto", PUBLISHED, *presets_of(context.method)])
        raise InputError(
            f"{context.method}: preset: expected {known_names}, or a protocol that recommends settings for "
            f"{context.method}; found {name!r}"
        )
    settings: Mapping[str, Any] = known[context.method]
    return settings
