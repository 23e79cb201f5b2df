"""Frozen adapters of each user's own beneath others, against weights into which they are merged."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from support import load_backbone, task

from lampbench.adapters import (
    AdapterSpec,
    EngineOptions,
    InterventionSpec,
    LoraSpec,
    Positions,
    Recipe,
    State,
    TrainingJob,
    acting,
    train_alone,
    train_together,
)
from lampbench.core import HistoryItem

BELOW = LoraSpec(3, 6.0, targets=("q_proj", "o_proj", "up_proj", "down_proj"))
RECIPE = Recipe(epochs=2, learning_rate=1e-2, weight_decay=1e-2, warmup_ratio=0.2, clip=0.3, batch_size=2)
CASES: dict[str, Sequence[AdapterSpec]] = {
    "lora": [LoraSpec(2, 4.0, 0.05, ("q_proj", "v_proj", "gate_proj"))],
    "last tokens of an upper layer": [InterventionSpec((2,), 4, Positions.parse("l3"))],
}
USERS = {"first": 3, "second": 5, "third": 2}


@pytest.fixture(scope="module")
def exact() -> Any:
    """The tiny backbone in float64."""
    backbone = load_backbone()
    backbone.model.double()
    return backbone


def random_state(backbone: Any, seed: int) -> State:
    draw = torch.Generator().manual_seed(seed)
    shapes = BELOW.shapes(backbone).items()
    return {name: 0.1 * torch.randn(shape, dtype=torch.float64, generator=draw) for name, shape in shapes}


@pytest.mark.parametrize("case", CASES)
def test_both_engines_train_on_what_lies_beneath_each_user(exact: Any, case: str) -> None:
    specs = CASES[case]
    states = {user: random_state(exact, seed) for seed, user in enumerate(USERS)}
    given = []
    for number, (user, count) in enumerate(USERS.items()):
        items = [HistoryItem(str(i), f"about {'very ' * (i + number)}{i}", f"title {i}") for i in range(count)]
        starts = [spec.fresh(exact, number) for spec in specs]
        given.append(TrainingJob(user, number, [task("lamp5").pair(item) for item in items], starts))
    beneath = [BELOW.per_user(exact, states)]
    found = [
        {job.name: train_alone(exact, job, specs, RECIPE, beneath=beneath) for job in given},
        *(
            {job.name: own for job, own in train_together(exact, given, specs, RECIPE, beneath=beneath, options=o)}
            for o in (EngineOptions(), EngineOptions(users=2, columns=60), EngineOptions(constants=0))
        ),
    ]
    for job in given:
        merged = exact.with_weights(BELOW.changes(exact, states[job.name]))
        (expected,) = train_alone(merged, job, specs, RECIPE)
        for (state,) in (trained[job.name] for trained in found):
            for name, tensor in expected.items():
                torch.testing.assert_close(state[name], tensor, rtol=1e-10, atol=1e-11)


def test_rows_of_nobody_are_answered_as_without_it(exact: Any) -> None:
    states = {user: random_state(exact, seed) for seed, user in enumerate(("first", "second"))}
    beneath = [BELOW.per_user(exact, states)]
    own = task("lamp5")
    prompts = [own.prompt(f"about {number}", str(number)) for number in range(4)]
    rows = ["second", None, "a stranger", "first"]
    found = exact.answer(own, prompts, acting(beneath, rows))
    for row, prompt, answer in zip(rows, prompts, found, strict=True):
        adapters = [BELOW.frozen(exact, [states[row]])] if row in states else []
        assert exact.answer(own, [prompt], adapters) == [answer]
    assert found != exact.answer(own, prompts)
