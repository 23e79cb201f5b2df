"""LoFiT: offsets per user for a few attention heads, which are chosen once for all users."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lampbench import AdapterMethod, InputError, LabelledUser, Parameters, Task, setting
from lampbench.adapters import HeadSpec, Recipe, State
from lampbench.bases import TrainingConfig
from lampbench.core import RunContext, SharedIdentity, config_to_json, derive_seed

_FILE = "heads.json"

Head = tuple[int, int]

# As in the released scripts for Llama-2-7B, none of which is for a task of LaMP.
PUBLISHED: Mapping[str, Any] = {
    "share": 0.03,
    "head_learning_rate": 5e-3,
    "learning_rate": 1e-2,
    "head_epochs": 5,
    "epochs": 5,
    "batch_size": 8,
    "clip": 1.0,
}


@dataclass(frozen=True)
class LofitConfig(TrainingConfig):
    """Settings of ``lofit``."""

    published = PUBLISHED
    user_epochs_in = "epochs"
    share: float | None = setting(None, "part of all attention heads that are kept")
    head_learning_rate: float | None = setting(None, "AdamW learning rate of the scalings that choose the heads")
    head_epochs: int | None = setting(None, "epochs of the scalings over the shared users' queries")
    head_l1: float = setting(1e-3, "L1 penalty on the scalings (published: 5e-4 to 1e-3)")
    epochs: int | None = setting(None, "epochs of the offsets over the user's history")
    weight_decay: float = setting(0.0, "AdamW weight decay (published: none)")
    warmup_ratio: float = setting(0.0, "part of the steps in which the learning rate rises (published: none)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, found {self.share}")
        self.above_zero("head_learning_rate")
        self.at_least(0, "head_l1")


class Lofit(AdapterMethod):
    """Localized fine-tuning: heads chosen once on shared users, then one offset vector per chosen head and user.

    The shared stage trains a vector per attention head that scales its output, ``z (1 + a)``, and keeps the heads with
    the longest ones; the scalings are then dropped. A user's own stage adds a trained vector to the output of each kept
    head, ``z + v``, at every token. The rest of the model is frozen.

    LoFiT was published for tasks, not for users: that the shared users choose the heads and each user has offsets is
    chosen here. Both kinds of vectors start at 0 (published: normal with standard deviation 0.001).
    """

    Config = LofitConfig
    paper = "Yin et al., LoFiT, NeurIPS 2024"

    def setup(self) -> None:
        """Start without chosen heads."""
        super().setup()
        self._lengths: dict[Head, float] = {}
        self._chosen: tuple[Head, ...] = ()

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None from the preset; raises InputError if the backbone has no heads to edit."""
        shape = context.shape
        if shape is not None and shape.linear_maps and not shape.heads:
            raise InputError(
                "lofit: the outputs of the model's attention heads cannot be told apart; use a method with LoRA"
            )
        return super().resolve(config, task, context)

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """The share of kept heads, and the learning rate of their offsets."""
        return {"share": (0.03, 0.1, 0.3), "learning_rate": (1e-3, 3e-3, 1e-2, 3e-2)}

    @classmethod
    def shared_identity(cls, config: Any) -> SharedIdentity:
        """What the scalings depend on; how many heads are kept, and the offsets, come after them."""
        unread = {"preset", "share", "learning_rate", "epochs"}
        read = {name: value for name, value in config_to_json(config).items() if name not in unread}
        return SharedIdentity("lofit scalings", cls.version, read)

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Train the scalings, and keep the heads with the longest ones."""
        spec, recipe = self._scalings(), self.config.recipe(self.config.head_epochs)
        recipe = replace(recipe, learning_rate=self.config.head_learning_rate, l1=self.config.head_l1)
        start = spec.fresh(self.backbone, derive_seed(self.seed, "heads"))
        (state,) = self.train_shared(users, [spec], recipe, [start])
        self._choose(self._measured(state))

    def adapter(self) -> HeadSpec:
        """The user's offsets."""
        return HeadSpec("offset", self._chosen)

    def recipe(self) -> Recipe:
        """How they are trained."""
        recipe: Recipe = self.config.recipe(self.config.epochs)
        return recipe

    def save_shared(self, folder: Path) -> None:
        """Write ``heads.json``: layer, head and length of the scaling of every head."""
        lengths = [[layer, head, length] for (layer, head), length in self._lengths.items()]
        (folder / _FILE).write_text(json.dumps(lengths), encoding="utf-8")

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Read it; raises InputError for another model's."""
        path = folder / _FILE
        try:
            found = {
                (int(layer), int(head)): float(length) for layer, head, length in json.loads(path.read_text("utf-8"))
            }
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: not a list of heads with the lengths of their scalings: {error}") from error
        expected = self._heads()
        if list(found) != expected:
            raise InputError(f"{path}: expected the model's {len(expected)} attention heads, found {len(found)} others")
        self._choose(found)

    def parameters(self) -> Parameters:
        """The scalings of all heads, and one user's offsets."""
        scalings, heads = self._scalings(), self._heads()
        own = HeadSpec("offset", tuple(heads[: self._count(heads)]))
        return Parameters(scalings.parameter_count(self.backbone), own.parameter_count(self.backbone))

    def _scalings(self) -> HeadSpec:
        return HeadSpec("scale")

    def _heads(self) -> list[Head]:
        """All heads of the model."""
        return [(place.layer, head) for place in self._scalings().places(self.backbone) for head in place.heads]

    def _count(self, heads: Sequence[Head]) -> int:
        share: float = self.config.share
        return max(1, round(share * len(heads)))

    def _measured(self, state: State) -> dict[Head, float]:
        """The length of each head's scaling."""
        places = self._scalings().places(self.backbone)
        return {
            (place.layer, head): float(vector.norm())
            for place in places
            for head, vector in zip(place.heads, state[place.name].double(), strict=True)
        }

    def _choose(self, lengths: Mapping[Head, float]) -> None:
        """Keep the heads with the longest scalings; of equals, the first."""
        self._lengths = dict(lengths)
        longest = sorted(lengths, key=lambda head: -lengths[head])
        self._chosen = tuple(sorted(longest[: self._count(longest)]))
