"""The parts of scale-out without Ray: shards, parcels, and a queue that one worker of this process empties."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lampbench_methods.majority import Majority
from runs import FAST, planner
from support import Silence

from lampbench.core import HistoryItem, Method, User
from lampbench.rows import Check, Tokens
from lampbench.runner import Plan, RunFolder, Session
from lampbench.runner._work import Work
from lampbench.runner.scale._cluster import room_for
from lampbench.runner.scale._inbox import Inbox
from lampbench.runner.scale._job import Job
from lampbench.runner.scale._parcel import Manifest, pack, read_manifest, seal, unpack
from lampbench.runner.scale._units import SharedUsers, shards_of
from lampbench.runner.scale._worker import UnitError, Worker


class Crash(BaseException):
    """The process ends here."""


def job(made: Plan, workers: int = 2) -> Job:
    data = made.dataset
    work = Work(dataclasses.replace(made, backbone=None), data, RunFolder(made.folder), Silence())
    work.where = {"hardware_class": "here"}
    return Job(work, made, workers, SharedUsers(lambda: data.shared, len(data.shared)), lambda names: dict)


def worker(made: Plan, stop: Callable[[], bool] = lambda: False) -> Worker:
    return Worker(True, lambda key, share: stop())


def emptied(todo: Job, worker: Worker) -> Any:
    """The row once every unit is done."""
    while todo.row is None:
        unit = todo.give()
        todo.arrived(unit.name, worker.do(unit.make()).files)
    return todo.row


def after_the_shared_stage(made: Plan) -> tuple[Job, Worker]:
    """The run when its shards wait, and a worker."""
    made.folder.mkdir(parents=True)
    todo, one = job(made), worker(made)
    fit = todo.give()
    assert fit.kind == "fit"
    todo.arrived(fit.name, one.do(fit.make()).files)
    return todo, one


def perfit(tmp_path: Path) -> Plan:
    made = planner(tmp_path).plan("perfit", "lamp5", FAST)
    assert isinstance(made, Plan)
    return made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run in one go."""
    folder = tmp_path_factory.mktemp("alone")
    made = perfit(folder)
    assert Session(planner(folder), Silence()).run(made).status == "success"
    return RunFolder(made.folder)


def is_like(made: Plan, alone: RunFolder) -> bool:
    folder = RunFolder(made.folder)
    times = Counter(user for event in folder.journal() if event["event"] == "adapt" for user in event["users"])
    states = {user.id: _bytes(folder.user_state(user.id)) for user in made.dataset.users}
    assert states == {user.id: _bytes(alone.user_state(user.id)) for user in made.dataset.users}
    assert set(times.values()) == {1}
    return folder.predictions_path.read_bytes() == alone.predictions_path.read_bytes()


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_queue_of_units_gives_what_one_run_gives(tmp_path: Path, alone: RunFolder) -> None:
    made = perfit(tmp_path)
    made.folder.mkdir(parents=True)
    row = emptied(job(made), worker(made))
    assert row.status == "success", row.error
    assert is_like(made, alone)


@pytest.mark.parametrize("step", ["states", "journal", "answers", "delete"])
def test_taking_a_parcel_can_end_at_any_step_and_is_done_once(
    tmp_path: Path, alone: RunFolder, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = perfit(tmp_path)
    todo, one = after_the_shared_stage(made)
    unit = todo.give()
    delivery = one.do(unit.make())
    broken = {
        "states": (Inbox, "_take_states"),
        "journal": (RunFolder, "log"),
        "answers": (RunFolder, "add_predictions"),
        "delete": (Inbox, "_discard"),
    }[step]

    def crash(*arguments: Any, **named: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(*broken, crash)
        with pytest.raises(Crash):
            todo.arrived(unit.name, delivery.files)
    row = emptied(job(made), worker(made))
    assert row.status == "success", row.error
    assert is_like(made, alone)


def test_a_damaged_parcel_is_deleted_and_its_unit_done_again(tmp_path: Path, alone: RunFolder) -> None:
    made = perfit(tmp_path)
    todo, one = after_the_shared_stage(made)
    unit = todo.give()
    one.do(unit.make())
    parcel = made.folder / "shards" / unit.name
    answers = parcel / "predictions.jsonl"
    answers.write_bytes(answers.read_bytes()[:-9])
    assert read_manifest(parcel, made.folder) is None
    row = emptied(job(made), worker(made))
    assert row.status == "success", row.error
    assert is_like(made, alone)


def test_a_worker_that_is_told_to_stop_keeps_what_is_whole(tmp_path: Path, alone: RunFolder) -> None:
    made = perfit(tmp_path)
    todo, _ = after_the_shared_stage(made)
    unit = todo.give()
    todo.interrupt()
    todo.arrived(unit.name, worker(made, stop=lambda: True).do(unit.make()).files)
    assert todo.row is not None
    assert todo.row.status == "incomplete"
    row = emptied(job(made), worker(made))
    assert row.status == "success", row.error
    assert is_like(made, alone)


class OddError(Exception):
    """An exception that cannot be made again from its text."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class Raises(Majority):
    """Fails in a way of its own."""

    def adapt(self, users: Any) -> None:
        raise OddError(1, 2)


def test_what_a_method_raises_comes_back_as_text(tmp_path: Path) -> None:
    import pickle

    made = planner(tmp_path).plan("majority", "lamp5", {})
    assert isinstance(made, Plan)
    made = dataclasses.replace(made, method_type=Raises)
    todo, one = after_the_shared_stage(made)
    unit = todo.give()
    with pytest.raises(UnitError, match="OddError: 1 and 2") as caught:
        one.do(unit.make())
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.loading) == ("OddError: 1 and 2", False)
    assert "in adapt" in again.details
    # Given out again, twice; then it is given up, and so is the rest.
    for attempt in range(3):
        todo.missed(unit.name, str(again), again.details)
        assert (unit in todo.waiting) == (attempt < 2)
        if attempt < 2:
            assert todo.give() == unit
    while todo.row is None:
        todo.missed(todo.give().name, "the same", attempts=3)
    assert todo.row.status == "incomplete"
    assert unit.users[0] in (todo.row.error or "")


def test_a_unit_that_failed_once_and_then_succeeds_leaves_no_trace(tmp_path: Path, alone: RunFolder) -> None:
    made = perfit(tmp_path)
    made.folder.mkdir(parents=True)
    todo, one = job(made), worker(made)
    for _ in range(2):
        todo.missed(todo.give().name, "its worker died")
    row = emptied(todo, one)
    assert row.status == "success", row.error
    assert is_like(made, alone)


def test_a_parcel_of_users_who_were_adapted_meanwhile_is_not_taken(tmp_path: Path, alone: RunFolder) -> None:
    made = perfit(tmp_path)
    todo, one = after_the_shared_stage(made)
    unit = todo.give()
    one.do(unit.make())
    # A worker that lost its command does the same users under another name, and is late.
    late = made.folder / "shards" / "shard-late"
    shutil.copytree(made.folder / "shards" / unit.name, late)
    (late / "manifest.json").unlink()
    seal(late, Manifest("late"))
    todo.arrived(unit.name, None)
    row = emptied(job(made), worker(made))
    assert row.status == "success", row.error
    assert is_like(made, alone)


def test_users_without_queries_and_a_swap_test_come_to_an_end(tmp_path: Path) -> None:
    made_by = planner(tmp_path, swap_test=True)
    made = made_by.plan("majority", "lamp5", {})
    assert isinstance(made, Plan)
    silent = made.dataset.users[0].id
    queries = tuple(query for query in made.dataset.queries if query.user_id != silent)
    made = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, queries=queries))
    made.folder.mkdir(parents=True)
    todo, one = job(made, workers=9), worker(made)
    for _ in range(100):
        if todo.row is not None:
            break
        unit = todo.give()
        todo.arrived(unit.name, one.do(unit.make()).files)
    assert todo.row is not None
    assert todo.row.status == "success", todo.row.error
    assert todo.row.swap is not None


def test_a_worker_counts_tokens_for_runs_with_a_backbone_only(tmp_path: Path) -> None:
    one, rows = Worker(True, lambda key, share: False), []
    for method in ("zero-shot", "majority"):
        made = planner(tmp_path).plan(method, "lamp5", {})
        assert isinstance(made, Plan)
        made.folder.mkdir(parents=True)
        rows.append(emptied(job(made), one))
    zero_shot, majority = (row.cost.tokens for row in rows)
    assert zero_shot.prompt > 0
    assert majority == Tokens(prompt=None)


def test_a_run_pays_once_for_the_backbone_of_a_worker(tmp_path: Path) -> None:
    made = perfit(tmp_path)
    made.folder.mkdir(parents=True)
    one = worker(made)
    emptied(job(made, workers=9), one)
    loads = [event["seconds"] for event in RunFolder(made.folder).journal() if event["event"] == "load"]
    assert one._backbone(made)[1] > 0
    assert sum(seconds >= one._backbone(made)[1] for seconds in loads) <= 1


class Unforgetting(Majority):
    """Cannot forget."""

    def forget(self, user_id: str) -> None:
        raise RuntimeError("no forgetting here")


def test_a_method_that_cannot_forget_fails_its_check_and_no_unit(tmp_path: Path) -> None:
    made = planner(tmp_path).plan("majority", "lamp5", {})
    assert isinstance(made, Plan)
    made = dataclasses.replace(made, method_type=Unforgetting)
    made.folder.mkdir(parents=True)
    row = emptied(job(made), worker(made))
    assert row.status == "success", row.error
    assert row.checks["isolation"] == Check(passed=False, error="RuntimeError: no forgetting here")
    # Where it came from is in the run's log, whichever worker it happened in.
    assert "in forget" in RunFolder(made.folder).log_path.read_text()


def test_units_hold_no_gold(tmp_path: Path) -> None:
    made = perfit(tmp_path)
    made.folder.mkdir(parents=True)
    todo, one = job(made), worker(made)
    while todo.row is None:
        unit = todo.give().make()
        assert not unit.data.golds
        assert not unit.plan.dataset.golds
        todo.arrived(unit.name, one.do(unit).files)


# --- parcels


def test_a_parcel_reads_as_it_was_sealed_and_any_change_shows(tmp_path: Path) -> None:
    folder, run = tmp_path / "parcel", tmp_path / "run"
    (folder / "state" / "users" / "u").mkdir(parents=True)
    (folder / "state" / "users" / "u" / "s").write_bytes(b"state")
    (folder / "journal.jsonl").write_text("{}\n")
    seal(folder, Manifest("id", {"shared": 1}, said=["a line"]))
    manifest = read_manifest(folder, run)
    assert manifest is not None
    assert (manifest.id, manifest.said, sorted(manifest.files)) == (
        "id", ["a line"], ["journal.jsonl", "state/users/u/s"],
    )  # fmt: skip
    copy = tmp_path / "copy"
    unpack(pack(folder), copy)
    assert read_manifest(copy, run) == manifest
    (copy / "journal.jsonl").write_text("{ }\n")
    assert read_manifest(copy, run) is None
    # A state that was taken already is not missed; one that is nowhere is.
    shutil.move(folder / "state", run / "state")
    assert read_manifest(folder, run) == manifest
    shutil.rmtree(run)
    assert read_manifest(folder, run) is None


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "state/../../x"])
def test_no_packed_file_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="leads out"):
        unpack({name: b""}, tmp_path / "in")


# --- shards


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
    users = [User(f"u{i}", (HistoryItem("i", "s", "t"),) * length) for i, length in enumerate(lengths)]
    kind: type[Method] = type("Kind", (Majority,), {"users_at_once": at_once})

    def cut(given: list[User]) -> Iterator[list[User]]:
        return shards_of(given, lambda user: len(user.history), kind, workers)

    shards = list(cut(users))
    assert sorted(user.id for shard in shards for user in shard) == sorted(user.id for user in users)
    flat = [len(user.history) for shard in shards for user in shard]
    assert flat == sorted(flat, reverse=True)
    assert all(1 <= len(shard) <= at_once for shard in shards)
    # No worker goes without while there are users enough.
    assert len(shards) >= min(len(users), workers)
    assert [[user.id for user in shard] for shard in cut(users[::-1])] == [[user.id for user in s] for s in shards]
