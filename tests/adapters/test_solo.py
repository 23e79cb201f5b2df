from typing import Any

import pytest
import torch
from support import load_backbone, task
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup

from lampbench.adapters import (
    InterventionSet,
    InterventionSpec,
    Positions,
    Recipe,
    TrainingJob,
    batch_loss,
    train_alone,
)
from lampbench.backbone import PassWindow
from lampbench.core import HistoryItem, InputError, Pair, Prompt

RECIPE = Recipe(epochs=2, learning_rate=1e-2, weight_decay=1e-2, warmup_ratio=0.1, clip=0.3, batch_size=3)
PAIRS = [task("lamp5").pair(HistoryItem(str(i), f"about {w}", f"{w} title")) for i, w in enumerate("abcdefg")]


def spec(positions: str = "all", layer: int = 1) -> InterventionSpec:
    return InterventionSpec((layer,), 4, Positions.parse(positions))


def fresh(backbone: Any, positions: str = "all") -> InterventionSet:
    chosen = spec(positions)
    with chosen.alone(backbone, chosen.fresh(backbone, 5)) as adapter:
        return adapter


def trained(backbone: Any, specs: list[InterventionSpec], recipe: Recipe = RECIPE, **options: Any) -> Any:
    job = TrainingJob("someone", 11, PAIRS, [own.fresh(backbone, 5) for own in specs])
    return train_alone(backbone, job, specs, recipe, **options)


def one_by_one(backbone: Any, batch: list[tuple[list[int], list[int]]], adapter: InterventionSet) -> torch.Tensor:
    """The loss without padding: every row alone, all target tokens averaged together."""
    parts, labels = [], []
    for prompt, target in batch:
        window = PassWindow(torch.tensor([0]), torch.tensor([len(prompt)]), torch.tensor([0]), len(prompt))
        with adapter.adapter().attach(backbone.layers, window):
            logits = backbone.model(torch.tensor([prompt + target])).logits[0]
        parts.append(logits[len(prompt) - 1 : -1])
        labels += target
    return cross_entropy(torch.cat(parts), torch.tensor(labels))


@pytest.mark.parametrize("positions", ["all", "l2", "f1+l2"])
def test_the_loss_is_the_mean_over_target_tokens_whatever_the_padding(backbone: Any, positions: str) -> None:
    batch = [backbone.encoder.pair(pair) for pair in PAIRS[:2]] + [([9, 8, 7], [6, 5, 4, 3, 1])]
    ours, theirs = fresh(backbone, positions), fresh(backbone, positions)
    loss, expected = batch_loss(backbone, batch, [ours.adapter()]), one_by_one(backbone, batch, theirs)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-3)


def test_training_follows_a_plain_loop(backbone: Any) -> None:
    """Order, schedule, clip and optimizer against a loop written from their definitions."""
    (ours,) = trained(backbone, [spec()])
    theirs = fresh(backbone)
    encoded = [backbone.encoder.pair(pair) for pair in PAIRS]
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=1, num_training_steps=6)
    generator = torch.Generator().manual_seed(11)
    for _ in range(2):
        order = torch.randperm(7, generator=generator).tolist()
        for rows in (order[:3], order[3:6], order[6:]):
            optimizer.zero_grad()
            one_by_one(backbone, [encoded[i] for i in rows], theirs).backward()
            norm = torch.cat([p.grad.flatten() for p in theirs.parameters() if p.grad is not None]).norm()
            for parameter in theirs.parameters():
                assert parameter.grad is not None
                parameter.grad *= min(1.0, 0.3 / (float(norm) + 1e-6))
            optimizer.step()
            schedule.step()
    for name, tensor in theirs.state().items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("steps", "ratio"), [(10, 0.1), (7, 0.25), (1, 0.1), (100, 0.0)])
def test_the_schedule_is_transformers_linear_schedule(steps: int, ratio: float) -> None:
    import math

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, math.ceil(steps * ratio), steps)
    ours = Recipe(1, 0.5, 0.0, ratio, 1.0, 1).schedule(steps)
    for step in range(steps + 1):
        assert ours(step) == pytest.approx(0.5 * theirs.lr_lambdas[0](step))


def test_training_lowers_the_loss_and_leaves_the_backbone_alone() -> None:
    backbone = load_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    encoded = [backbone.encoder.pair(pair) for pair in PAIRS]
    start = spec().frozen(backbone, [spec().fresh(backbone, 5)])
    (state,) = trained(backbone, [spec()], Recipe(20, 1e-2, 0.0, 0.1, 1.0, 4))
    with torch.no_grad():
        losses = [batch_loss(backbone, encoded, [own]) for own in (start, spec().frozen(backbone, [state]))]
    assert losses[1] < losses[0] - 0.5
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_several_adapters_train_together(backbone: Any) -> None:
    specs = [spec(layer=0), spec()]
    for own, state in zip(specs, trained(backbone, specs), strict=True):
        start = own.fresh(backbone, 5)
        assert all(not torch.equal(state[name], start[name]) for name in start)


def test_a_frozen_adapter_beneath_is_used_but_not_moved(backbone: Any) -> None:
    start = spec(layer=0).fresh(backbone, 7)
    beneath = spec(layer=0).frozen(backbone, [start])
    (alone,), (above,) = trained(backbone, [spec()]), trained(backbone, [spec()], beneath=[beneath])
    assert not torch.equal(alone["1.weight"], above["1.weight"])
    again = spec(layer=0).fresh(backbone, 7)
    assert all(torch.equal(start[name], again[name]) for name in start)


def test_progress_and_tokens_are_reported() -> None:
    backbone, steps = load_backbone(), []
    trained(backbone, [spec()], progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i, 6) for i in range(1, 7)]
    encoded = [backbone.encoder.pair(pair) for pair in PAIRS]
    assert backbone.usage.train_tokens == 2 * sum(len(p) + len(t) for p, t in encoded)


def test_a_target_too_long_for_the_context_is_an_error(backbone: Any) -> None:
    with pytest.raises(InputError, match="item 3"):
        backbone.encoder.pair(Pair(Prompt("head ", "source", " tail:", id="item 3"), "word " * 600))
