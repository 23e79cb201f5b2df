"""AdamW over stacked users against torch's own, one optimizer per user."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lampbench.adapters import StackedAdamW

SHAPES = ((3, 4), (5,))
USERS = 4


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(USERS, *s, dtype=torch.float64, generator=generator)) for s in SHAPES]


@settings(deadline=None, max_examples=20)
@given(
    schedule=st.lists(st.sets(st.integers(0, USERS - 1), min_size=1), min_size=1, max_size=8),
    clip=st.sampled_from([0.1, 1.0, 100.0]),
    weight_decay=st.sampled_from([0.0, 0.01, 0.3]),
)
def test_every_user_moves_as_an_optimizer_of_its_own_moves_it(
    schedule: list[set[int]], clip: float, weight_decay: float
) -> None:
    stacked = parameters()
    ours = StackedAdamW(stacked, USERS, weight_decay=weight_decay, clip=clip)
    alone = [[torch.nn.Parameter(p[user].detach().clone()) for p in parameters()] for user in range(USERS)]
    theirs = [torch.optim.AdamW(own, lr=1.0, weight_decay=weight_decay) for own in alone]
    generator = torch.Generator().manual_seed(1)
    for step, active in enumerate(schedule):
        for p in stacked:
            p.grad = torch.randn(p.shape, dtype=torch.float64, generator=generator) * 3
        rates = {user: 0.01 * (1 + user + step) for user in active}
        for user in active:
            for own, p in zip(alone[user], stacked, strict=True):
                assert p.grad is not None
                own.grad = p.grad[user].clone()
            torch.nn.utils.clip_grad_norm_(alone[user], clip)
            theirs[user].param_groups[0]["lr"] = rates[user]
            theirs[user].step()
        ours.step(sorted(active), [rates[user] for user in sorted(active)])
    for user in range(USERS):
        for own, p in zip(alone[user], stacked, strict=True):
            torch.testing.assert_close(p[user], own, atol=1e-12, rtol=1e-12)


def test_inactive_users_do_not_change_at_all() -> None:
    stacked = parameters()
    optimizer = StackedAdamW(stacked, USERS, weight_decay=0.1, clip=1.0)
    before = [p.detach().clone() for p in stacked]
    for p in stacked:
        p.grad = torch.ones_like(p)
    optimizer.step([1, 3], [0.1, 0.1])
    for p, old in zip(stacked, before, strict=True):
        assert torch.equal(p[[0, 2]], old[[0, 2]])
        assert not torch.equal(p[1], old[1])
    assert optimizer.counts.tolist() == [0, 1, 0, 1]


def test_a_new_user_in_a_slot_starts_without_momentum() -> None:
    stacked, fresh = parameters(), parameters()
    optimizers = [StackedAdamW(own, USERS, weight_decay=0.0, clip=1.0) for own in (stacked, fresh)]
    for p in stacked:
        p.grad = torch.ones_like(p)
    optimizers[0].step([0, 1, 2, 3], [0.1] * 4)
    with torch.no_grad():
        for p, start in zip(stacked, fresh, strict=True):
            p[2] = start[2]
    optimizers[0].restart(2)
    for own, optimizer in zip((stacked, fresh), optimizers, strict=True):
        for p in own:
            p.grad = torch.full_like(p, 0.3)
        optimizer.step([2], [0.1])
    assert all(torch.equal(p[2], other[2]) for p, other in zip(stacked, fresh, strict=True))


def test_the_group_says_how_many_users_share_its_tensors() -> None:
    optimizer = StackedAdamW(parameters(), USERS, weight_decay=0.0, clip=1.0)
    assert optimizer.param_groups[0]["users"] == USERS


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [3, 2, 1, 0]])
def test_rates_follow_the_given_order_of_users(order: list[int]) -> None:
    stacked, sorted_ = parameters(), parameters()
    for own, users in ((stacked, order), (sorted_, sorted(order))):
        optimizer = StackedAdamW(own, USERS, weight_decay=0.0, clip=1.0)
        for p in own:
            p.grad = torch.ones_like(p)
        optimizer.step(users, [0.1 * (1 + user) for user in users])
    assert all(torch.equal(p, other) for p, other in zip(stacked, sorted_, strict=True))


def test_gradients_below_the_clip_are_not_made_larger() -> None:
    # Adam does not see one factor on all gradients; it sees one per step.
    stacked, alone = parameters(), [torch.nn.Parameter(p[0].detach().clone()) for p in parameters()]
    ours = StackedAdamW(stacked, USERS, weight_decay=0.0, clip=1.0)
    theirs = torch.optim.AdamW(alone, lr=0.1, weight_decay=0.0)
    for size in (1e-2, 1e-3, 1e-1):
        for p, own in zip(stacked, alone, strict=True):
            p.grad = torch.full_like(p, size)
            own.grad = torch.full_like(own, size)
        ours.step([0], [0.1])
        theirs.step()
    for p, own in zip(stacked, alone, strict=True):
        torch.testing.assert_close(p[0], own, atol=1e-12, rtol=1e-12)
