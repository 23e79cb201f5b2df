"""How long a run may take, before anything of it is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from lampbench.api._find import ID_DIGITS
from lampbench.bases import TrainingConfig
from lampbench.core import InputError
from lampbench.rows import Row
from lampbench.runner import Plan, RunFolder, hardware_class, has_shared_stage

# Operations per weight and token: a pass forward, and one that also carries gradients through frozen weights.
_READ, _TRAINED = 2, 4
# What models reach of the speed of one large matrix product.
_REACHED = 0.3
# What a decoder layer costs in a pass, however few tokens are in it.
_LAYER_SECONDS = 2e-4
_MEASURED_SECONDS = 0.2
_ROUGH = "rough: by the model's size and the speed of this device; a third or three times as much is usual"


@dataclass(frozen=True)
class Tokens:
    """Tokens of a run's texts, as far as they are known before it.

    Attributes:
        prompts: Of all queries' plain prompts.
        longest: Of the longest of these.
        histories: Of the evaluated users' histories as training examples.
        shared: Of the shared users' queries as training examples.
        answers: Of all answers at most.
    """

    prompts: int
    longest: int
    histories: int
    shared: int
    answers: int

    @classmethod
    def of(cls, plan: Plan, encoder: Any) -> Tokens:
        """Those of ``plan``, counted by its encoder."""
        data, task = plan.dataset, plan.task
        prompts = [len(encoder.prompt(task.prompt(q.text, q.id), task.max_new_tokens)) for q in data.queries]
        histories = (encoder.pair(task.pair(item)) for user in data.users for item in user.history)
        shared: Any = ()
        if has_shared_stage(plan):
            labelled = [own for user in data.shared for own in user.queries]
            examples = (task.example(own.query.text, own.target, own.query.id) for own in labelled)
            shared = map(encoder.pair, examples)
        return cls(
            sum(prompts),
            max(prompts),
            sum(len(prompt) + len(target) for prompt, target in histories),
            sum(len(prompt) + len(target) for prompt, target in shared),
            len(prompts) * task.max_new_tokens,
        )


@dataclass(frozen=True)
class Estimate:
    """Seconds that a run may take.

    Attributes:
        seconds: Without loading the model.
        basis: What this is made of, in words.
    """

    seconds: float
    basis: str


def estimate(plan: Plan, tokens: Tokens | None, weights: Callable[[], int]) -> Estimate | None:
    """How long ``plan`` may take; None if nothing is known to tell it by.

    Args:
        plan: The run.
        tokens: Those of its texts; None if no model runs here.
        weights: Counts the model's weights.
    """
    earlier = _like(plan)
    if earlier is not None:
        name = earlier.run_id[:ID_DIGITS]
        return Estimate(_scaled(plan, earlier), f"by run {name} of the same method and model here")
    if tokens is None or plan.backbone is None or plan.backbone.shape is None:
        return None
    shared_epochs, user_epochs = _epochs(plan)
    read = tokens.prompts + tokens.answers
    shared = tokens.shared + (tokens.histories if plan.joint else 0)
    trained = user_epochs * tokens.histories + shared_epochs * shared
    operations = weights() * (_READ * read + _TRAINED * trained)
    # Each token of a batch of answers is a pass of its own.
    batches = -(-len(plan.dataset.queries) // plan.settings.batch_size)
    passes = batches * plan.task.max_new_tokens
    seconds = operations / (_REACHED * _speed(plan.backbone.device.split(":")[0], plan.backbone.dtype))
    seconds += passes * plan.backbone.shape.layers * _LAYER_SECONDS
    return Estimate(seconds, _ROUGH)


def _epochs(plan: Plan) -> tuple[int, int]:
    """Epochs of the shared stage, and of each user."""
    config = plan.config
    if not isinstance(config, TrainingConfig):
        return 0, 0
    own = config.user_epochs_in
    others = [name for name in vars(config) if name.endswith("epochs") and name != own]
    shared = getattr(config, others[0]) if others and has_shared_stage(plan) else 0
    return shared or 0, (getattr(config, own) if own else 0) or 0


def _like(plan: Plan) -> Row | None:
    """A finished run of the same method, settings, task and model on this hardware, the largest one; None without."""
    device = plan.backbone.device if plan.backbone else "cpu"
    found = []
    for path in sorted(plan.folder.parent.glob("*/row.json")):
        try:
            row = RunFolder(path.parent).row()
        except InputError:  # a damaged row of another run, which says nothing here
            continue
        if isinstance(row, Row) and row.environment.hardware_class == hardware_class(device) and _same(plan, row):
            found.append(row)
    return max(found, key=lambda row: row.data.users, default=None)


def _same(plan: Plan, row: Row) -> bool:
    theirs = row.identity.to_json()
    return all(plan.identity[key] == theirs[key] for key in ("config", "backbone", "decoding", "engine"))


def _scaled(plan: Plan, earlier: Row) -> float:
    """An earlier run's seconds for as many users, items and queries as this one has; the shared stage is the same."""
    seconds, data, cost = earlier.cost.seconds, plan.dataset, earlier.cost
    items = sum(len(user.history) for user in data.users)
    adapting = (seconds.adapt or 0.0) * items / max(1, earlier.data.history_items)
    answering = (seconds.predict or 0.0) * len(data.queries) / earlier.data.queries
    shared = (seconds.fit_shared or 0.0) * len(data.shared) / max(1, earlier.data.shared_users)
    return adapting + answering + shared + (seconds.score or 0.0) + (cost.check_seconds or 0.0)


@cache
def _speed(device: str, dtype: str) -> float:
    """Operations per second of a large matrix product."""
    import torch

    kind: Any = getattr(torch, dtype)
    matrix = torch.ones(1024, 1024, dtype=kind, device=device)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < _MEASURED_SECONDS:
        product = matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        count += 1
    del product
    return count * 2 * 1024**3 / (time.perf_counter() - begun)
