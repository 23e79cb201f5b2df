from typing import Any

import pytest
import torch
from support import load_backbone, task
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup

from lampbench.adapters import InterventionSet, Positions, Recipe, batch_loss, linear_schedule, train
from lampbench.core import HistoryItem, Pair, Prompt

RECIPE = Recipe(epochs=2, learning_rate=1e-2, weight_decay=1e-2, warmup_ratio=0.1, clip=0.3, batch_size=3)
PAIRS = [task("lamp5").pair(HistoryItem(str(i), f"about {w}", f"{w} title")) for i, w in enumerate("abcdefg")]


def fresh(backbone: Any, positions: str = "all", layer: int = 1) -> InterventionSet:
    return InterventionSet.fresh([layer], backbone.shape.width, 4, Positions.parse(positions), identity=False, seed=5)


def one_by_one(backbone: Any, batch: list[tuple[list[int], list[int]]], adapter: InterventionSet) -> torch.Tensor:
    """The loss without padding: every row alone, all target tokens averaged together."""
    from lampbench.backbone import Window

    parts, labels = [], []
    for prompt, target in batch:
        window = Window(torch.tensor([0]), torch.tensor([len(prompt)]))
        with adapter.current().attach(backbone.layers, window):
            logits = backbone.model(torch.tensor([prompt + target])).logits[0]
        parts.append(logits[len(prompt) - 1 : -1])
        labels += target
    return cross_entropy(torch.cat(parts), torch.tensor(labels))


@pytest.mark.parametrize("positions", ["all", "l2", "f1+l2"])
def test_the_loss_is_the_mean_over_target_tokens_whatever_the_padding(backbone: Any, positions: str) -> None:
    batch = [backbone.encode_pair(pair) for pair in PAIRS[:2]] + [([9, 8, 7], [6, 5, 4, 3, 1])]
    ours, theirs = fresh(backbone, positions), fresh(backbone, positions)
    loss, expected = batch_loss(backbone, batch, [ours.current()]), one_by_one(backbone, batch, theirs)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-3)


def test_training_follows_a_plain_loop(backbone: Any) -> None:
    """Order, schedule, clip and optimizer against a loop written from their definitions."""
    ours, theirs = fresh(backbone), fresh(backbone)
    train(backbone, PAIRS, [ours], RECIPE, seed=11)

    encoded = [backbone.encode_pair(pair) for pair in PAIRS]
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
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("steps", "ratio"), [(10, 0.1), (7, 0.25), (1, 0.1), (100, 0.0)])
def test_the_schedule_is_transformers_linear_schedule(steps: int, ratio: float) -> None:
    import math

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, math.ceil(steps * ratio), steps)
    ours = linear_schedule(steps, ratio)
    for step in range(steps + 1):
        assert ours(step) == pytest.approx(theirs.lr_lambdas[0](step))


def test_training_lowers_the_loss_and_leaves_the_backbone_alone() -> None:
    backbone = load_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    encoded = [backbone.encode_pair(pair) for pair in PAIRS]
    adapter = fresh(backbone)
    start = float(batch_loss(backbone, encoded, [adapter.current()]).detach())
    train(backbone, PAIRS, [adapter], Recipe(20, 1e-2, 0.0, 0.1, 1.0, 4), seed=0)
    assert float(batch_loss(backbone, encoded, [adapter.frozen()])) < start - 0.5
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_several_adapters_train_together_and_act_in_order(backbone: Any) -> None:
    lower, upper = fresh(backbone, layer=0), fresh(backbone, layer=1)
    starts = [[p.clone() for p in adapter.parameters()] for adapter in (lower, upper)]
    train(backbone, PAIRS, [lower, upper], RECIPE, seed=0)
    for adapter, start in zip((lower, upper), starts, strict=True):
        assert all(not torch.equal(p, q) for p, q in zip(adapter.parameters(), start, strict=True))


def test_a_frozen_adapter_beneath_is_used_but_not_moved(backbone: Any) -> None:
    beneath = fresh(backbone, layer=0).frozen()
    kept = {n: [t.clone() for t in (e.rotation, e.weight, e.bias)] for n, e in beneath.layers.items()}
    alone, above = fresh(backbone), fresh(backbone)
    train(backbone, PAIRS, [alone], RECIPE, seed=0)
    train(backbone, PAIRS, [above], RECIPE, seed=0, beneath=[beneath])
    assert not torch.equal(next(alone.parameters()), next(above.parameters()))
    edit = beneath.layers[0]
    assert all(torch.equal(a, b) for a, b in zip(kept[0], (edit.rotation, edit.weight, edit.bias), strict=True))


def test_progress_and_tokens_are_reported() -> None:
    backbone, steps = load_backbone(), []
    train(backbone, PAIRS, [fresh(backbone)], RECIPE, seed=0, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i, 6) for i in range(1, 7)]
    encoded = [backbone.encode_pair(pair) for pair in PAIRS]
    assert backbone.usage.train_tokens == 2 * sum(len(p) + len(t) for p, t in encoded)


def test_a_target_too_long_for_the_context_is_an_error(backbone: Any) -> None:
    from lampbench.core import InputError

    with pytest.raises(InputError, match="item 3"):
        backbone.encode_pair(Pair(Prompt("head ", "source", " tail:", id="item 3"), "word " * 600))
