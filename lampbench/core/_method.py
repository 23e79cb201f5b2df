"""The contract of a method: the plug-in manual."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from lampbench.core._config import NoConfig
from lampbench.core._task import Task
from lampbench.core._types import LabelledUser, Prompt, Query, User


@dataclass(frozen=True, slots=True)
class BackboneShape:
    """What is known about a backbone before its weights are loaded.

    Attributes:
        layers: Decoder layers.
        width: Hidden size.
        context: The longest sequence it reads, in tokens.
        linear_maps: Last names of the linear maps in its decoder layers; empty if not known.
        shared_maps: Those of them whose weights are shared by several layers.
        streams: Hidden states of a token that its layers pass on; with several, none is the one to intervene on.
        heads: Attention heads of all layers whose outputs can be edited; 0 if there are none, or if it is not known.
    """

    layers: int
    width: int
    context: int
    linear_maps: tuple[str, ...] = ()
    shared_maps: tuple[str, ...] = ()
    streams: int = 1
    heads: int = 0


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a method may know about a run when its config is resolved.

    Attributes:
        protocol: The name of the protocol that the data comes from.
        shape: The backbone's, or None for methods that use no backbone.
        method: The name that the method is registered under.
        recommended: Field of the config -> value: what the protocol recommends for this method on this backbone.
        others: The recommended settings of all methods, by name.
    """

    protocol: str
    shape: BackboneShape | None = None
    method: str = ""
    recommended: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, method: str) -> RunContext:
        """The same run for another method, such as one that this one builds on."""
        return replace(self, method=method, recommended=self.others.get(method, {}))


@dataclass(frozen=True, slots=True)
class Parameters:
    """Trainable parameters: the shared stage's, and one user's."""

    shared: int = 0
    per_user: int = 0


@dataclass(frozen=True, slots=True)
class SharedIdentity:
    """What a method's shared stage depends on, besides data, backbone, prompts, decoding, engine and seed.

    Attributes:
        name: The stage's name: the same for all methods that train this very stage, and for no other.
        version: Must be raised with every change that could change what the stage learns.
        settings: All settings that the stage reads, as JSON values, under names that these methods have in common.
    """

    name: str
    version: int
    settings: Mapping[str, Any]


DecodingMode = Literal["greedy", "sampled", "labels"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampled decoding. Draws depend on the run's seed and the prompt's id, never on the batch."""

    temperature: float
    top_k: int
    top_p: float


class Backbone(Protocol):
    """The frozen language model as a prompt method sees it."""

    @property
    def shape(self) -> BackboneShape | None:
        """Layers, width and context length; None if they are not known, as for a served model."""

    @property
    def device(self) -> str:
        """Where it runs, such as ``cpu`` or ``cuda``."""

    def answer(self, task: Task, prompts: Sequence[Prompt]) -> list[str]:
        """One answer per prompt, decoded as the run asks (greedy, sampled or label scoring)."""

    def write(self, prompts: Sequence[Prompt], max_new_tokens: int, sampling: Sampling | None) -> list[str]:
        """Free text after each prompt, possibly of several lines; greedy if ``sampling`` is None."""


class Method(ABC):
    """Base class of every method, and the manual for writing one.

    A plug-in is a class, named by an entry point of its distribution:

        [project.entry-points."lampbench.methods"]
        latest = "my_package:Latest"

    For methods that only change the prompt, derive from ``lampbench.PromptMethod``; for
    methods that train one adapter per user, from ``lampbench.AdapterMethod``. With these there is little
    to write. Deriving from this class gives full control.

    **What a method gets.** The runner builds it with ``task``, ``config`` (an instance of
    ``Config``), ``seed`` and ``backbone`` (None if ``needs_backbone`` is False); the base class
    keeps them under these names. A method opens no data and no model itself, and never sees a gold
    of an evaluated user.

    **Lifecycle**, driven by the runner; times, memory, parameters and bytes are measured there:

    1. ``fit_shared(users)``: once, with the users of the shared split and their labelled queries. If the method
       declares joint training, ``fit_joint(users)`` follows, once, with all evaluated users; see below.
    2. ``adapt(users)``: evaluated users, at most ``users_at_once`` per call, in any order. What
       happens to one user must not depend on the others.
    3. ``predict(queries)``: one string per query, in order. A user who was never adapted, or was
       forgotten, is answered without that user's history.
    4. ``save_shared`` / ``save_user`` after the stage; ``load_shared`` / ``load_user`` instead of
       it, in a resumed run or in another worker. What is not saved is computed again by ``fit_shared`` and ``adapt``.
       Loaded state must give the same predictions.
    5. ``forget(user_id)``.

    **Joint training.** Some published methods train what all users share on the evaluated users' own
    histories. Such a method returns True from ``joint`` and does it in ``fit_joint``: nowhere else may it
    learn of one user for another. It must save what it learned there. The run's identity says ``joint``,
    and boards show such a run without a rank, because its answers depend on who else is evaluated,
    ``forget`` cannot take back what the shared state learned from a user, and a new user means training anew.

    **A shared stage is trained once.** Runs with the same shared stage take it from each other, if the method overrides
    ``save_shared`` and ``load_shared``. By default it is the same only under the same config; a method whose shared
    stage does not read all settings says so in ``shared_identity``.

    **Randomness** comes from ``seed`` together with the user's id, never from global state.

    **Config** is a frozen dataclass; ``lampbench.setting(default, help)`` documents a field.
    Fields left at None may be filled by ``resolve``; the resolved config is part of the run's
    identity. A ``__post_init__`` may refuse values with a ValueError. ``search_space`` says which
    values ``lampbench tune`` should try.

    Attributes:
        Config: The frozen config dataclass.
        version: Must be raised with every change to the method that could change a score.
        paper: Where the method comes from; shown by ``lampbench describe``.
        needs_backbone: False for methods that use no language model; none is loaded then.
        needs_weights: False for methods that use only what ``lampbench.core.Backbone``
            has: only these can use a served model.
        users_at_once: Users per call of ``adapt``; an interruption can lose these, except those given to ``keep_user``.
        engines: Ways to train that ``--engine`` chooses from, the default first; they
            differ in cost, and in results only by rounding. Empty for methods that train nothing.
        engine: The chosen one.
        progress: Call as ``progress(done, total)`` from a long ``fit_shared`` or ``adapt``; moves the progress bar.
        say: Call with a line of text that the user should see.
        keep: Call from a long ``fit_shared`` or ``fit_joint`` with a function that writes a snapshot into an empty
            folder; an interrupted stage finds it under ``kept``.
        keep_user: Call from a long ``adapt`` with the id of a user who is finished: the state is saved at once, and
            is kept after an interruption.
        kept: The folder of the last snapshot of an interrupted ``fit_shared``, or None.
    """

    Config: ClassVar[type] = NoConfig
    version: ClassVar[int] = 1
    paper: ClassVar[str] = ""
    needs_backbone: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    users_at_once: ClassVar[int] = 32
    engines: ClassVar[tuple[str, ...]] = ()

    progress: Callable[[float, int], None]
    say: Callable[[str], None]
    keep: Callable[[Callable[[Path], None]], None]
    keep_user: Callable[[str], None]

    def __init__(self, *, task: Task, config: Any, seed: int, backbone: Any) -> None:
        self.task = task
        self.config = config
        self.seed = seed
        self.backbone = backbone
        self.engine = self.engines[0] if self.engines else ""
        self.progress = lambda done, total: None
        self.say = lambda text: None
        self.keep = lambda write: None
        self.keep_user = lambda user_id: None
        self.kept: Path | None = None
        self.setup()

    def setup(self) -> None:
        """Called once at the end of construction; prepare attributes here."""

    @classmethod
    def supports(cls, task: Task) -> tuple[bool, str]:
        """Whether the method supports ``task``, and if not, why."""
        return True, ""

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """The config with everything filled in that depends on the task, the protocol or the backbone."""
        return config

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """Config field -> values worth trying, for ``lampbench tune``; if empty, ``--space`` must name them."""
        return {}

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Learn what all users share. Override this if the method has such a stage."""

    @classmethod
    def shared_identity(cls, config: Any) -> SharedIdentity | None:
        """What the shared stage depends on, under a resolved config; None: on all of it, for this method alone.

        Runs that give the same answer here share one trained stage, also runs of several methods. A setting that is
        left out must not change what ``fit_shared``, ``fit_joint`` and ``save_shared`` do. A class that inherits this
        method may train in another way, so it must say it again; until then, all of its config counts.
        """
        return None

    @classmethod
    def joint(cls, config: Any) -> bool:
        """Whether the shared stage reads the evaluated users' histories, under a resolved config."""
        return False

    def fit_joint(self, users: Sequence[User]) -> None:
        """Learn what all users share from the evaluated users' histories, none of which is empty.

        Called once, after ``fit_shared`` and before anyone is adapted, and only if ``joint`` returns True. It
        belongs to the shared stage: it is measured with it, and ``save_shared`` must save what it learned.
        """

    def adapt(self, users: Sequence[User]) -> None:
        """Learn from each user's history, which is never empty. Override this if the method uses it.

        Users without a history are not adapted; they are answered like unknown users.
        """

    @abstractmethod
    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        """One answer per query, in order."""

    def forget(self, user_id: str) -> None:
        """Drop everything learned from the user."""

    def moved(self, user_id: str) -> bool | None:
        """Whether ``adapt`` moved the user's parameters from where they started; None if the method does not say."""
        return None

    def save_shared(self, folder: Path) -> None:
        """Write the shared state into an empty folder; write nothing if there is none."""

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Restore what ``save_shared`` wrote; by default, fit again, which joint training does not allow."""
        self.fit_shared(users)

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write one user's state into an empty folder: files that the user can take along."""

    def load_user(self, user: User, folder: Path) -> None:
        """Restore what ``save_user`` wrote; by default, adapt again."""
        self.adapt([user])

    def parameters(self) -> Parameters:
        """Trainable parameters, as the optimizers held them.

        The runner checks them against the most that one torch optimizer held in each stage, so each
        stage, or user, must be trained by one optimizer. An optimizer of many users' stacked parameters
        gives the number of users in its parameter group, under ``users``.
        """
        return Parameters()
