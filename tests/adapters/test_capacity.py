from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lampbench.adapters import EngineOptions, LoraSpec, _capacity
from lampbench.adapters._capacity import Room, capacity, column_bytes, free_memory
from lampbench.core import _memory

SPEC = LoraSpec(4, 8.0)
GB = 1 << 30


def with_free(monkeypatch: pytest.MonkeyPatch, backbone: Any, size: int) -> _capacity.Capacity:
    monkeypatch.setattr(_capacity, "free_memory", lambda device: size)
    return capacity(backbone, [SPEC])


def test_more_memory_never_means_less_at_a_time(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [with_free(monkeypatch, backbone, size) for size in (0, 10**6, 10**7, 10**8, GB, 64 * GB)]
    for one, other in pairwise(found):
        assert one.users <= other.users
        assert one.columns <= other.columns
        assert one.constants <= other.constants
    assert (found[0].users, found[0].columns) == (1, 1)


def test_what_is_planned_fits_into_what_is_free(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (10**7, 10**8):
        plan = with_free(monkeypatch, backbone, size)
        parameters = 16 * SPEC.parameter_count(backbone) * plan.users
        assert parameters + plan.columns * column_bytes(backbone) + plan.constants <= size


def test_given_bounds_replace_what_memory_suggests(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_free(monkeypatch, backbone, GB)
    assert EngineOptions().within(found) == found
    assert EngineOptions(users=3, constants=0).within(found) == _capacity.Capacity(3, found.columns, 0)


def test_the_past_and_the_logits_of_a_row_take_room(backbone: Any) -> None:
    room = Room(backbone)
    assert room.of(20, 0, 0) == 20
    assert room.of(20, 400, 0) > room.of(20, 0, 0)
    assert room.of(20, 0, 10) > room.of(20, 0, 1)


def test_a_containers_own_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("_LIMIT", "5000000"), ("_USED", "2000000")):
        path = tmp_path / name
        path.write_text(text)
        monkeypatch.setattr(_memory, name, path)
    assert free_memory("cpu") == 3_000_000
    (tmp_path / "_LIMIT").write_text("max\n")
    assert free_memory("cpu") > 3_000_000
