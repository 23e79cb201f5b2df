"""Banks: slots, pyreft as the oracle of all kinds, and what they must not hold."""

from typing import Any

import pytest
import torch
from torch import nn

from lampbench.adapters import KINDS, Edit, InterventionSpec, Kind, LoraSpec, Positions, StackedAdamW, random_edit

ALL = Positions.parse("all")
RANK = 4


def bank_at(backbone: Any, kind: Kind, seeds: tuple[int, ...]) -> Any:
    spec = InterventionSpec((1,), RANK, ALL, kind)
    bank = spec.bank(backbone, len(seeds))
    for slot, seed in enumerate(seeds):
        bank.put(slot, spec.fresh(backbone, seed))
    return bank


def edit_of(evaluated: Any) -> Edit:
    """The stacked edit at layer 1."""
    edit: Edit = evaluated.adapter(torch.tensor([0]), None).layers[1]
    return edit


def stacked_edit(bank: Any) -> Edit:
    return edit_of(bank.evaluated())


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_is_where_its_user_was_put(backbone: Any, kind: Kind) -> None:
    spec = InterventionSpec((1,), RANK, ALL, kind)
    bank = bank_at(backbone, kind, (3, 1, 2))
    for slot, seed in enumerate((3, 1, 2)):
        expected = spec.fresh(backbone, seed)
        found = bank.take(slot)
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], atol=2e-6, rtol=0)


def test_putting_a_user_moves_no_other(backbone: Any) -> None:
    for spec in (InterventionSpec((0, 1), RANK, ALL), LoraSpec(RANK, 8.0)):
        bank = spec.bank(backbone, 3)
        for slot in range(3):
            bank.put(slot, spec.fresh(backbone, slot))
        before = [bank.take(slot) for slot in range(3)]
        bank.put(1, spec.fresh(backbone, 9))
        for slot in (0, 2):
            after = bank.take(slot)
            assert all(torch.equal(after[name], before[slot][name]) for name in after)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_holds_no_matrix_of_the_backbones_width(llama_shaped: Any, kind: Kind) -> None:
    width = llama_shaped.shape.width
    with torch.device("meta"):
        bank = InterventionSpec((1,), RANK, ALL, kind).bank(llama_shaped, 2)
    for tensor in (*bank.parameters.values(), *bank.constants.values()):
        assert tensor[0].numel() <= RANK * width
    spec = InterventionSpec((1,), RANK, ALL, kind)
    assert sum(p[0].numel() for p in bank.parameters.values()) == spec.parameter_count(llama_shaped)


@pytest.mark.parametrize("kind", ["loreft", "direft", "consreft", "lobireft"])
def test_rotations_stay_orthonormal_while_many_users_train(backbone: Any, kind: Kind) -> None:
    bank = bank_at(backbone, kind, (0, 1, 2))
    optimizer = StackedAdamW(list(bank.parameters.values()), 3, weight_decay=0.1, clip=1e9)
    h = torch.randn(3, 5, backbone.shape.width, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        optimizer.zero_grad()
        evaluated = bank.evaluated()
        (edit_of(evaluated).of_rows(torch.arange(3))(h) - 1).square().mean().backward()
        evaluated.backward()
        optimizer.step([0, 1, 2], [0.05] * 3)
    rotation = stacked_edit(bank).rotation
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(RANK).expand(3, -1, -1), atol=1e-5, rtol=0)


PYREFT = {
    "loreft": "LoreftIntervention",
    "noreft": "NoreftIntervention",
    "direft": "DireftIntervention",
    "consreft": "ConsreftIntervention",
    "lobireft": "LobireftIntervention",
}


def pyrefts(kind: Kind, edit: Edit, slot: int) -> Any:
    """pyreft's module at one user's parameters."""
    pyreft = pytest.importorskip("pyreft", reason="pyreft needs transformers 4.45.1; the tf445 environment has it")
    rotation, bias = edit.rotation[slot].detach(), edit.bias[slot].detach()
    module = getattr(pyreft, PYREFT[kind])(
        embed_dim=rotation.shape[1], low_rank_dimension=len(rotation), dtype=torch.float32, add_bias=False
    )
    if kind == "noreft":
        module.proj_layer.weight.data = rotation.clone()
    else:
        module.rotate_layer.weight = rotation.T.contiguous()
    if edit.weight is None:
        module.learned_source.data = bias.clone()
    else:
        module.learned_source.weight.data = edit.weight[slot].detach().clone()
        module.learned_source.bias.data = bias.clone()
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_every_users_map_and_gradients_equal_pyrefts(backbone: Any, kind: Kind) -> None:
    bank = bank_at(backbone, kind, (5, 6, 7))
    evaluated = bank.evaluated()
    h = torch.randn(3, 4, backbone.shape.width, generator=torch.Generator().manual_seed(1))
    users = torch.tensor([2, 0, 1])
    out = edit_of(evaluated).of_rows(users)(h)
    modules = [pyrefts(kind, edit_of(evaluated), int(user)) for user in users]
    expected = torch.stack([module(row) for module, row in zip(modules, h, strict=True)])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    out.square().sum().backward()
    expected.square().sum().backward()
    for user, module in zip(users, modules, strict=True):
        source = module.learned_source if kind in ("consreft", "lobireft") else module.learned_source.bias
        torch.testing.assert_close(bank.parameters["1.bias"].grad[user], source.grad, atol=1e-4, rtol=1e-4)


def test_users_stacked_follow_pyrefts_training_path(backbone: Any) -> None:
    """AdamW without weight decay on pyreft's own parametrization, one module per user, from the same start."""
    starts = [random_edit(backbone.shape.width, RANK, torch.Generator().manual_seed(s)) for s in (0, 1)]
    bank: Any = InterventionSpec((1,), RANK, ALL).bank(backbone, 2)
    for slot, start in enumerate(starts):
        assert start.weight is not None
        bank.put(slot, {"1.rotation": start.rotation, "1.weight": start.weight, "1.bias": start.bias})
    modules = [pyrefts("loreft", stacked_edit(bank), slot) for slot in range(2)]
    for module, slot in zip(modules, range(2), strict=True):
        set_base(module, bank, slot)
    ours = StackedAdamW(list(bank.parameters.values()), 2, weight_decay=0.0, clip=1e9)
    theirs = [torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.0) for module in modules]
    h = torch.randn(2, 5, backbone.shape.width, generator=torch.Generator().manual_seed(2))
    for _ in range(10):
        evaluated = bank.evaluated()
        ours.zero_grad()
        (edit_of(evaluated).of_rows(torch.arange(2))(h) - 1).square().mean((1, 2)).sum().backward()
        evaluated.backward()
        ours.step([0, 1], [1e-2, 1e-2])
        for module, optimizer, row in zip(modules, theirs, h, strict=True):
            optimizer.zero_grad()
            (module(row) - 1).square().mean().backward()
            optimizer.step()
    for slot, module in enumerate(modules):
        state = bank.take(slot)
        torch.testing.assert_close(state["1.rotation"], module.rotate_layer.weight.T, atol=1e-4, rtol=0)
        torch.testing.assert_close(state["1.weight"], module.learned_source.weight, atol=1e-4, rtol=0)


def set_base(module: Any, bank: Any, slot: int) -> None:
    """Give pyreft's parametrization the completion of R that the bank uses."""
    reflectors, factor, signs = (bank.constants[f"1.{name}"][slot] for name in ("reflectors", "factor", "signs"))
    full = torch.eye(len(reflectors))
    full[: len(signs)] *= signs
    module.rotate_layer.parametrizations.weight[0].base = full - reflectors @ (factor @ (reflectors.T @ full))


def test_a_bank_s_parameters_are_leaves_an_optimizer_takes(backbone: Any) -> None:
    for spec in (InterventionSpec((1,), RANK, ALL), LoraSpec(RANK, 8.0)):
        bank = spec.bank(backbone, 2)
        assert all(isinstance(p, nn.Parameter) and p.is_leaf and len(p) == 2 for p in bank.parameters.values())
