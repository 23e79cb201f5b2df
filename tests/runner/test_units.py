"""Units without Ray: what is given out, and what comes of it, whatever goes wrong with a worker."""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lampbench_methods.majority import Majority
from runs import FAST, planner
from support import Silence

from lampbench.core import AskedUser
from lampbench.rows import RunRow
from lampbench.runner import LocalExecutor, Plan, Run, RunFolder, Worker, environment, shards_of
from lampbench.runner.scale import UnitError, pack, room_for, unpack


@pytest.fixture
def held() -> Iterator[Callable[..., Run]]:
    """Runs whose folders are held until the test ends, or until the next run of the same folder begins."""
    folders: dict[Path, ExitStack] = {}

    def begin(made: Plan, workers: int = 2) -> Run:
        if made.folder in folders:
            folders[made.folder].close()
        folders[made.folder] = ExitStack()
        record = folders[made.folder].enter_context(RunFolder(made.folder).held())
        return Run(made, record, lambda text: None, workers=workers, where=environment("cpu"))

    yield begin
    for stack in folders.values():
        stack.close()


def goes_on() -> None:
    """Nobody asks to stop."""


def emptied(run: Run, worker: Worker) -> RunRow:
    """The row once every unit is done."""
    while run.row is None:
        unit = run.give()
        worker.do(unit.make(), run.sink(unit.name), goes_on)
        run.done(unit.name)
    return run.row


def after_the_shared_stage(run: Run, worker: Worker) -> None:
    """Do the first unit: shards wait now."""
    fit = run.give()
    assert fit.kind == "fit"
    worker.do(fit.make(), run.sink(fit.name), goes_on)
    run.done(fit.name)


def perfit(tmp_path: Path) -> Plan:
    made = planner(tmp_path).plan("perfit", "lamp5", FAST)
    assert isinstance(made, Plan)
    return made


def majority(tmp_path: Path, **settings: Any) -> Plan:
    made = planner(tmp_path, **settings).plan("majority", "lamp5", {})
    assert isinstance(made, Plan)
    return made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run in one go."""
    made = perfit(tmp_path_factory.mktemp("alone"))
    assert LocalExecutor(Silence()).run(made).status == "success"
    return RunFolder(made.folder)


def is_like(made: Plan, alone: RunFolder) -> bool:
    folder = RunFolder(made.folder)
    times = Counter(user for event in folder.journal() if event["event"] == "adapt" for user in event["users"])
    states = {user.id: pack(folder.user_state(user.id)) for user in made.dataset.users}
    assert states == {user.id: pack(alone.user_state(user.id)) for user in made.dataset.users}
    assert set(times.values()) == {1}
    return folder.predictions_path.read_bytes() == alone.predictions_path.read_bytes()


def test_many_small_units_give_what_one_run_gives(tmp_path: Path, alone: RunFolder, held: Callable[..., Run]) -> None:
    made = perfit(tmp_path)
    row = emptied(held(made), Worker())
    assert row.status == "success", row.error
    assert is_like(made, alone)


@pytest.mark.parametrize("step", ["keep", "log", "answer"])
def test_taking_results_can_end_at_any_step_and_loses_nothing_that_was_taken(
    tmp_path: Path, alone: RunFolder, step: str, held: Callable[..., Run]
) -> None:
    class Crash(BaseException):
        """The process ends here."""

    made, one = perfit(tmp_path), Worker()
    run = held(made)
    after_the_shared_stage(run, one)
    unit = run.give()
    sink = run.sink(unit.name)

    def crash(*arguments: Any) -> None:
        raise Crash

    setattr(sink, step, crash)
    with pytest.raises(Crash):
        one.do(unit.make(), sink, goes_on)
    row = emptied(held(made), Worker())
    assert row.status == "success", row.error
    assert is_like(made, alone)


def test_a_unit_that_is_told_to_stop_keeps_what_is_whole(
    tmp_path: Path, alone: RunFolder, held: Callable[..., Run]
) -> None:
    made, one = perfit(tmp_path), Worker()
    run = held(made)
    after_the_shared_stage(run, one)
    unit = run.give()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.do(unit.make(), run.sink(unit.name), stop)
    run.interrupt()
    run.done(unit.name)
    assert run.result.status == "incomplete"
    row = emptied(held(made), Worker())
    assert row.status == "success", row.error
    assert is_like(made, alone)


def test_a_unit_that_fails_three_times_is_given_up_with_its_users_named(
    tmp_path: Path, held: Callable[..., Run]
) -> None:
    run = held(majority(tmp_path))
    after_the_shared_stage(run, Worker())
    unit = run.give()
    for attempt in range(3):
        run.missed(unit.name, "OddError: 1 and 2", "in adapt")
        assert (unit in run.waiting) == (attempt < 2)
        if attempt < 2:
            assert run.give() == unit
    while run.row is None:
        other = run.give()
        for _ in range(3):
            run.missed(other.name, "the same")
            if other in run.waiting:
                run.give()
    assert run.row.status == "incomplete"
    assert unit.users[0] in str(run.row.error)


def test_a_unit_that_failed_twice_and_then_succeeds_leaves_no_trace(
    tmp_path: Path, alone: RunFolder, held: Callable[..., Run]
) -> None:
    made = perfit(tmp_path)
    run = held(made)
    for _ in range(2):
        run.missed(run.give().name, "its worker died")
    row = emptied(run, Worker())
    assert row.status == "success", row.error
    assert is_like(made, alone)


def test_users_who_were_kept_before_their_unit_failed_are_not_adapted_again(
    tmp_path: Path, alone: RunFolder, held: Callable[..., Run]
) -> None:
    made = perfit(tmp_path)

    class Failing(made.method_type):  # type: ignore[misc, name-defined]
        def predict(self, queries: Any) -> Any:
            if self._states:
                raise RuntimeError("after all were adapted")
            return super().predict(queries)

    one = Worker()
    run = held(dataclasses.replace(made, method_type=Failing))
    after_the_shared_stage(run, one)
    unit = run.give()
    with pytest.raises(RuntimeError):
        one.do(unit.make(), run.sink(unit.name), goes_on)
    run.missed(unit.name, "RuntimeError")
    assert set(unit.make().states) == set(unit.users)
    row = emptied(held(made), Worker())
    assert row.status == "success", row.error
    assert is_like(made, alone)


def test_users_without_queries_and_a_swap_test_come_to_an_end(tmp_path: Path, held: Callable[..., Run]) -> None:
    made = majority(tmp_path, swap_test=True)
    first, *others = made.dataset.evaluated
    golds = {query.id: made.dataset.golds[query.id] for asked in others for query in asked.queries}
    data = dataclasses.replace(made.dataset, evaluated=[AskedUser(first.user, ()), *others], golds=golds)
    row = emptied(held(dataclasses.replace(made, dataset=data), workers=9), Worker())
    assert row.status == "success", row.error
    assert row.swap is not None


def test_a_worker_counts_tokens_for_runs_with_a_backbone_only(tmp_path: Path, held: Callable[..., Run]) -> None:
    one, rows = Worker(), []
    for method in ("zero-shot", "majority"):
        made = planner(tmp_path).plan(method, "lamp5", {})
        assert isinstance(made, Plan)
        rows.append(emptied(held(made), one))
    zero_shot, other = (row.to_json()["cost"]["tokens"] for row in rows)
    assert zero_shot["prompt"] > 0
    assert set(other.values()) == {None}


def test_a_worker_loads_the_backbone_once_for_all_units_of_a_run(tmp_path: Path, held: Callable[..., Run]) -> None:
    made = perfit(tmp_path)
    emptied(held(made, workers=9), Worker())
    # One is the data, which this process read; one is the backbone.
    assert [event["event"] for event in RunFolder(made.folder).journal()].count("load") == 2


def test_a_method_that_cannot_forget_fails_its_check_and_no_unit(tmp_path: Path, held: Callable[..., Run]) -> None:
    class Unforgetting(Majority):
        def forget(self, user_id: str) -> None:
            raise RuntimeError("no forgetting here")

    made = dataclasses.replace(majority(tmp_path), method_type=Unforgetting)
    row = emptied(held(made), Worker())
    assert row.status == "success", row.error
    found = row.to_json()["checks"]["isolation"]
    assert found == {"passed": False, "error": "RuntimeError: no forgetting here"}
    assert "in forget" in RunFolder(made.folder).log_path.read_text()


def test_units_hold_no_gold(tmp_path: Path, held: Callable[..., Run]) -> None:
    run, one = held(perfit(tmp_path)), Worker()
    while run.row is None:
        waiting = run.give()
        unit = waiting.make()
        assert not unit.plan.dataset.golds
        assert not unit.plan.dataset.evaluated
        assert all(type(asked) is AskedUser for asked in unit.users)
        one.do(unit, run.sink(waiting.name), goes_on)
        run.done(waiting.name)


def test_a_failure_can_be_sent_to_another_process() -> None:
    again = pickle.loads(pickle.dumps(UnitError("OddError: 1 and 2", "in adapt", loading=True)))
    assert (str(again), again.details, again.loading) == ("OddError: 1 and 2", "in adapt", True)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "state/../../x"])
def test_no_packed_file_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="leads out"):
        unpack({name: b""}, tmp_path / "in")


def test_a_packed_folder_unpacks_to_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "state" / "u").mkdir(parents=True)
    (tmp_path / "state" / "u" / "file").write_bytes(b"state")
    unpack(pack(tmp_path / "state", tmp_path), tmp_path / "copy")
    assert (tmp_path / "copy" / "state" / "u" / "file").read_bytes() == b"state"


@pytest.mark.parametrize(
    ("gpus", "room"), [(0.0, 24), (1.0, 3), (0.5, 6), (0.4, 6), (2.0, 1), (3.0, 0)], ids=lambda value: str(value)
)
def test_workers_find_room_node_by_node(gpus: float, room: int) -> None:
    def node(cpus: int, gpus: int, alive: bool = True) -> dict[str, Any]:
        return {"Alive": alive, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}}

    assert room_for([node(8, 2), node(16, 1), node(64, 8, alive=False)], gpus) == room


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 9), st.integers(1, 20))
def test_every_user_is_in_one_shard_and_the_most_work_comes_first(
    lengths: list[int], workers: int, at_once: int
) -> None:
    names = {place: f"u{place}" for place in range(len(lengths))}

    def cut(places: list[int]) -> list[list[int]]:
        return list(shards_of(places, lengths.__getitem__, names.__getitem__, at_once, workers))

    shards = cut(list(names))
    assert sorted(place for shard in shards for place in shard) == sorted(names)
    flat = [lengths[place] for shard in shards for place in shard]
    assert flat == sorted(flat, reverse=True)
    assert all(1 <= len(shard) <= at_once for shard in shards)
    # No worker is without a shard while there are users enough.
    assert len(shards) >= min(len(lengths), workers)
    assert cut(list(names)[::-1]) == shards
