"""CoPe: contrastive decoding of a user's model against the same model without the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from lampbench import AdapterMethod, InputError, LabelledUser, Method, Parameters, Query, Task, User, setting
from lampbench.core import RunContext, SharedIdentity, config_from, config_to_json, methods

# What the runner sets on a method after it is built.
_GIVEN = ("engine", "progress", "say", "keep", "keep_user", "kept")


@dataclass(frozen=True)
class CopeConfig:
    """Settings of ``cope``."""

    published: ClassVar[Mapping[str, Any]] = {"over": "oppu", "alpha": 0.1, "plausible": 0.1}

    over: Literal["oppu", "user-lora", "reft", "perfit"] = setting("oppu", "the method that adapts")
    alpha: float | None = setting(None, "weight of the unadapted model")
    plausible: float | None = setting(None, "smallest probability of a token, as a part of the best token's")
    base: Mapping[str, Any] | None = setting(
        None, "settings of the method that adapts, set by cope.base.KEY=VALUE; its defaults are those of its own runs"
    )

    def __post_init__(self) -> None:
        if self.alpha is not None and self.alpha < 0:
            raise ValueError(f"alpha must be at least 0, found {self.alpha}")
        if self.plausible is not None and not 0 < self.plausible <= 1:
            raise ValueError(f"plausible must be above 0 and at most 1, found {self.plausible}")


class Cope(Method):
    """Contrastive decoding of the user's model against the same model without the user.

    Another method trains; ``cope`` changes how answers are written. At each step, tokens that are implausible for the
    user's model are left out, and the token with the highest ``log p_user - alpha log p_unadapted`` is taken. The
    unadapted model is the one that answers unknown users: of OPPU, the task LoRA alone. Both models read every prompt,
    so answering costs about twice as much.

    The method that adapts has the same settings as in its own runs, so that the two rows differ only in decoding.
    CoPe's released code trains OPPU differently: the task LoRA also on ``o_proj``, batches of 8 and 4, and
    Mistral-7B-Instruct. CoPe's training by DPO is not implemented.
    """

    Config = CopeConfig
    config: Any
    paper = "Bu et al., CoPe, EMNLP 2025"
    engines = AdapterMethod.engines
    users_at_once = AdapterMethod.users_at_once

    def setup(self) -> None:
        """Build the method that adapts."""
        from lampbench.backbone import Contrast

        kind, config = _base(self.config)
        self._base = kind(task=self.task, config=config, seed=self.seed, backbone=self.backbone)
        self._base.contrast = Contrast(self.config.alpha, self.config.plausible)

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None as recommended or published, and resolve the settings of the method that adapts."""
        kind, base = _base(config)
        base = kind.resolve(base, task, context.of(config.over))
        if getattr(base, "kind", None) == "consreft":
            raise InputError("cope: base.kind: consreft always changes the model, so there is no unadapted one")
        usual = {**config.published, **context.recommended}
        given = {name: getattr(config, name) for name in ("alpha", "plausible")}
        filled = {name: usual[name] if value is None else value for name, value in given.items()}
        return replace(config, **filled, base=config_to_json(base))

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """Strength of the contrast, and how many tokens it chooses from."""
        return {"alpha": (0.05, 0.1, 0.2, 0.3, 0.5), "plausible": (0.05, 0.1, 0.3)}

    @classmethod
    def shared_identity(cls, config: Any) -> SharedIdentity | None:
        """That of the method that adapts: decoding changes nothing in it."""
        kind, base = _base(config)
        return kind.shared_identity(base)

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Train the shared stage of the method that adapts."""
        self._ready().fit_shared(users)
        self.backbone = self._base.backbone

    def adapt(self, users: Sequence[User]) -> None:
        """Adapt the users, as the method that adapts does."""
        self._ready().adapt(users)

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        """Answer each user by contrast with the unadapted model; unknown users get that model's answers."""
        return self._ready().predict(queries)

    def forget(self, user_id: str) -> None:
        """Drop the user's adapter and history."""
        self._base.forget(user_id)

    def moved(self, user_id: str) -> bool | None:
        """Whether the user's adapter differs from where it began."""
        return self._base.moved(user_id)

    def save_shared(self, folder: Path) -> None:
        """Write the shared state of the method that adapts."""
        self._base.save_shared(folder)

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Read it."""
        self._ready().load_shared(folder, users)
        self.backbone = self._base.backbone

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write the user's state, as the method that adapts does."""
        self._base.save_user(user_id, folder)

    def load_user(self, user: User, folder: Path) -> None:
        """Read it."""
        self._base.load_user(user, folder)

    def parameters(self) -> Parameters:
        """Parameters of the method that adapts; decoding has none."""
        return self._base.parameters()

    def _ready(self) -> AdapterMethod:
        """The method that adapts, with everything that the runner set on this one."""
        for name in _GIVEN:
            setattr(self._base, name, getattr(self, name))
        return self._base


def _base(config: CopeConfig) -> tuple[type[AdapterMethod], Any]:
    """The method that adapts, and its config; raises InputError if a setting is wrong."""
    kind: type[AdapterMethod] = methods().load(config.over)
    return kind, config_from(kind.Config, config.base or {}, f"cope: base of {config.over}")
