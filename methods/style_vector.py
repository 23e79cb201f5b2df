"""StyleVector: one vector per user, added to the hidden states of an answer's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lampbench_methods.reft import check_places, scaled
from torch import Tensor

from lampbench import InputError, Method, Query, Task, User, setting
from lampbench.adapters import Steering
from lampbench.backbone import TransformersBackbone
from lampbench.core import RunContext

_FILE = "style.safetensors"
# Of a public reproduction, on a model with 32 layers; the paper chose both on each task's validation split.
_LAYER = 16
_ALPHAS = {"lamp4": 0.02, "lamp5": 0.02, "lamp7": 0.5}
# Chosen, as no source says: the whole difference.
_ANY_ALPHA = 1.0
_LAYERS_TO_TRY = ((8,), (12,), (15,), (16,), (20,), (24,))


@dataclass(frozen=True)
class StyleVectorConfig:
    """Settings of ``style-vector``."""

    direction: Literal["mean", "logistic", "component"] | None = setting(
        None,
        "how the vector is found: mean difference, logistic regression, or first component of the differences "
        "(default: as the protocol recommends, or mean)",
    )
    layer: int | None = setting(None, "decoder layer to steer after, 0-based (default: 16 of 32, scaled)")
    alpha: float | None = setting(
        None,
        "factor of the vector (default: as the protocol recommends, or 0.02 on LaMP-4 and 5, 0.5 on LaMP-7, else 1)",
    )
    first: Literal["answer", "prompt"] | None = setting(
        None, "first steered token: the answer's (published), or the prompt's last (default for labels and ratings)"
    )
    items: int | None = setting(None, "how many of the latest history items are used (default: all)")

    def __post_init__(self) -> None:
        if self.items is not None and self.items < 1:
            raise ValueError(f"items must be at least 1, found {self.items}")


class StyleVector(Method):
    """Steers the model by one vector per user; nothing is trained.

    The model answers the source of each history item. The user's vector is the difference between the hidden states
    after the user's own texts and after the model's answers, at the last token, after one layer. Times ``alpha``, it is
    added to the hidden states of every token of an answer.

    The three kinds of direction are published, and that layer and ``alpha`` are chosen per task; layers from the middle
    on work best. Here, all kinds have the length of the mean difference, so that ``alpha`` means the same. The first
    token of an answer is predicted from the prompt's last one, which is steered as well if answers are labels or
    ratings. History items without a source (LaMP-7) all ask the same question.
    """

    Config = StyleVectorConfig
    config: Any
    paper = "Zhang et al., StyleVector, ACL 2025"
    backbone: TransformersBackbone

    def setup(self) -> None:
        """Start without adapted users."""
        self._vectors: dict[str, Tensor] = {}

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None, the layer scaled to the backbone's depth."""
        if config.direction is None:
            config = replace(config, direction=context.recommended.get("direction", "mean"))
        if config.alpha is None:
            config = replace(config, alpha=context.recommended.get("alpha", _ALPHAS.get(task.name, _ANY_ALPHA)))
        if config.first is None:
            config = replace(config, first="answer" if task.kind == "text" else "prompt")
        if context.shape is None:
            return config
        if config.layer is None:
            (layer,) = scaled((context.recommended.get("layer", _LAYER),), context.shape.layers)
            config = replace(config, layer=layer)
        check_places("style-vector", (config.layer,), 1, context.shape)
        return config

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """Layer and strength, as the paper chooses them."""
        space: dict[str, Sequence[Any]] = {"alpha": (0.02, 0.1, 0.3, 0.5, 1.0, 2.0)}
        if context.shape is not None:
            found = (scaled(layers, context.shape.layers)[0] for layers in _LAYERS_TO_TRY)
            space["layer"] = tuple(dict.fromkeys(found))
        return space

    def adapt(self, users: Sequence[User]) -> None:
        """Find each user's vector."""
        for done, user in enumerate(users, start=1):
            self._vectors[user.id] = self._vector(user)
            self.keep_user(user.id)
            self.progress(done, len(users))

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        """Answer many users' queries in one batch, each with its user's vector; unknown users have none."""
        known = list(dict.fromkeys(query.user_id for query in queries if query.user_id in self._vectors))
        zero = torch.zeros(self.backbone.shape.width)
        vectors = torch.stack([*(self._vectors[user] for user in known), zero]) * self.config.alpha
        numbers = {user: number for number, user in enumerate(known)}
        users = torch.tensor([numbers.get(query.user_id, len(known)) for query in queries], dtype=torch.long)
        device = self.backbone.device
        steering = Steering(
            self.config.layer, vectors.to(device), users.to(device), before=1 if self.config.first == "prompt" else 0
        )
        prompts = [self.task.prompt(query.text, query.id) for query in queries]
        return self.backbone.answer(self.task, prompts, [steering])

    def forget(self, user_id: str) -> None:
        """Drop the user's vector."""
        self._vectors.pop(user_id, None)

    def moved(self, user_id: str) -> bool:
        """Whether the user's texts differ from the model's answers."""
        return bool(self._vectors[user_id].any())

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write ``style.safetensors``: the vector."""
        from safetensors.torch import save_file

        save_file({"vector": self._vectors[user_id]}, folder / _FILE)

    def load_user(self, user: User, folder: Path) -> None:
        """Read it; raises InputError for another file."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path, width = folder / _FILE, self.backbone.shape.width
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not a saved style vector: {error}") from error
        shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in found.items()}
        if shapes != {"vector": ((width,), torch.float32)}:
            raise InputError(f"{path}: expected one vector of {width} numbers (float32), found {shapes}")
        self._vectors[user.id] = found["vector"]

    def _vector(self, user: User) -> Tensor:
        """The difference between the user's texts and the model's answers to the same sources."""
        encoder, history = self.backbone.encoder, user.history[-(self.config.items or len(user.history)) :]
        pairs = [self.task.pair(item) for item in history]
        answers = self.backbone.answer(self.task, [pair.prompt for pair in pairs])
        own, model = [], []
        for pair, answer in zip(pairs, answers, strict=True):
            # Without the token that ends a text.
            texts = [encoder.continuation(pair.prompt, text)[:-1] for text in (pair.target, answer)]
            asked = encoder.prompt(pair.prompt, max(map(len, texts)))
            own.append(asked + texts[0])
            model.append(asked + texts[1])
        states = self.backbone.last_states([*own, *model], [self.config.layer])[:, 0]
        of_user, of_model = states.double().chunk(2)
        return direction(of_user, of_model, self.config.direction).float()


def direction(own: Tensor, model: Tensor, kind: Literal["mean", "logistic", "component"]) -> Tensor:
    """A direction from the states ``model`` to ``own``, each of shape (items, width), as long as their mean difference.

    * ``mean``: the mean difference itself.
    * ``logistic``: the weights of a logistic regression that tells own from model (L2 penalty as in scikit-learn: 1).
    * ``component``: the first right singular vector of the differences; they are not centered, so that a single item
      has one.
    """
    differences = own - model
    mean = differences.mean(0)
    if kind == "mean" or not mean.any():
        return mean
    if kind == "component":
        found = torch.linalg.svd(differences, full_matrices=False).Vh[0]
        found = found if found @ mean >= 0 else -found
    else:
        found = _separating(torch.cat([own, model]), torch.cat([torch.ones(len(own)), torch.zeros(len(model))]))
    as_long: Tensor = found * (mean.norm() / found.norm())
    return as_long


def _separating(points: Tensor, labels: Tensor, steps: int = 100) -> Tensor:
    """Weights w that minimize |w|^2 / 2 plus the logistic losses of w x + b, by Newton's method.

    The minimum lies in the span of the points, whose coordinates are few.
    """
    labels = labels.to(points)
    spanned = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    inside = spanned.U * spanned.S
    design = torch.cat([inside, torch.ones_like(inside[:, :1])], dim=1)
    penalty = torch.ones_like(design[0])
    penalty[-1] = 0

    def loss(weights: Tensor) -> Tensor:
        margins = design @ weights
        return (penalty * weights.square()).sum() / 2 + (torch.nn.functional.softplus(margins) - labels * margins).sum()

    weights = torch.zeros_like(penalty)
    for _ in range(steps):
        chances = (design @ weights).sigmoid()
        slope = penalty * weights + design.mT @ (chances - labels)
        curve = torch.diag(penalty) + design.mT @ ((chances * (1 - chances)).unsqueeze(1) * design)
        step = torch.linalg.lstsq(curve, slope.unsqueeze(1)).solution[:, 0]
        size = 1.0
        while loss(weights - size * step) > loss(weights) and size > 1e-10:
            size /= 2
        weights = weights - size * step
        if (size * step).norm() <= 1e-12 * (1 + weights.norm()):
            break
    found: Tensor = spanned.Vh.mT @ weights[:-1]
    return found
