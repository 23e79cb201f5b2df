from itertools import pairwise
from typing import Any

from lampbench.adapters import Capacity, EngineOptions, LoraSpec, PassRoom, capacity

SPEC = LoraSpec(4, 8.0)
GB = 1 << 30


def test_more_memory_never_means_less_at_a_time(backbone: Any) -> None:
    found = [capacity(backbone, [SPEC], size) for size in (0, 10**6, 10**7, 10**8, GB, 64 * GB)]
    for one, other in pairwise(found):
        assert one.users <= other.users
        assert one.columns <= other.columns
        assert one.constants <= other.constants
    assert (found[0].users, found[0].columns) == (1, 1)


def test_what_is_planned_fits_into_what_is_free(backbone: Any) -> None:
    for size in (10**7, 10**8):
        plan = capacity(backbone, [SPEC], size)
        parameters = 16 * SPEC.parameter_count(backbone) * plan.users
        assert parameters + plan.columns * PassRoom(backbone).column_bytes + plan.constants <= size


def test_given_bounds_replace_what_memory_suggests(backbone: Any) -> None:
    found = capacity(backbone, [SPEC], GB)
    assert EngineOptions().within(found) == found
    assert EngineOptions(users=3, constants=0).within(found) == Capacity(3, found.columns, 0)


def test_the_past_and_the_logits_of_a_row_take_room(backbone: Any) -> None:
    room = PassRoom(backbone)
    assert room.of(20, 0, 0) == 20
    assert room.of(20, 400, 0) > room.of(20, 0, 0)
    assert room.of(20, 0, 10) > room.of(20, 0, 1)
