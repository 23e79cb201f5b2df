"""Joint training, declared: what the runner hands over, what the row says, and how boards show it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from board_rows import made_run
from support import Silence

from lampbench.core import InputError, LabelledUser, Method, Query, User
from lampbench.leaderboard import KnownGolds, add, boards, read_results, validate, write_boards
from lampbench.leaderboard.site import write_site
from lampbench.rows import JOINT, Row, read_row, run_id
from lampbench.runner import LocalExecutor, Plan, Planner, RunFolder, Settings, reachable

# ``sound-joint`` answers with the target that all evaluated users wrote most often, and its count per user.
pytestmark = pytest.mark.usefixtures("plugged")

TASK, USERS = "lamp3", 6


def planned(tmp_path: Path, method: str = "sound-joint", **settings: Any) -> Plan:
    made = Planner(Settings(**{"out": tmp_path / "runs", "users": USERS, **settings})).plan(method, TASK, {})
    assert isinstance(made, Plan)
    return made


def finished(made: Plan) -> Row:
    row = LocalExecutor(Silence()).run(made)
    assert isinstance(row, Row), row.error
    return row


def expected(made: Plan) -> dict[str, str]:
    """Query id -> the answer, counted here from the histories of all evaluated users."""
    counts = Counter(item.target for user in made.dataset.users for item in user.history)
    most = max(counts.values())
    common = min(target for target, count in counts.items() if count == most)
    own = {user.id: [item.target for item in user.history].count(common) for user in made.dataset.users}
    return {query.id: f"{common} {own[query.user_id]}" for query in made.dataset.queries}


def test_the_shared_stage_reads_every_evaluated_history_once_and_no_check_that_still_holds_is_left_out(
    tmp_path: Path,
) -> None:
    made = planned(tmp_path, swap_test=True)
    row = finished(made)
    assert RunFolder(made.folder).predictions() == expected(made)
    assert row.identity.joint and row.cost.seconds.fit_shared is not None and row.cost.bytes.shared
    # Once the shared stage has ended, users are apart as in every run.
    assert {name: row.checks[name].passed for name in ("fresh", "forget", "reload", "golds", "training_data")} == {
        "fresh": True, "forget": True, "reload": True, "golds": True, "training_data": True,
    }  # fmt: skip
    assert row.checks["joint_data"].passed and row.checks["joint_data"].users == USERS
    assert row.swap is not None
    assert read_row(made.folder / "row.json") == row


def test_other_users_make_another_run_and_other_answers(tmp_path: Path) -> None:
    few, all_of_them = planned(tmp_path, users=2), planned(tmp_path, users=None)
    assert len({few.run_id, all_of_them.run_id, planned(tmp_path).run_id}) == 3
    for made in (few, all_of_them):
        finished(made)
        assert RunFolder(made.folder).predictions() == expected(made)


def test_only_joint_runs_say_so_in_their_identity(tmp_path: Path) -> None:
    assert planned(tmp_path).identity["joint"] is True
    assert "joint" not in planned(tmp_path, "sound").identity
    row = finished(planned(tmp_path, "sound"))
    assert row.identity.joint is False and "joint_data" not in row.checks
    # So ids and bytes of other runs are as they were, and rows from before there was such a field read as false.
    written = json.loads(RunFolder(planned(tmp_path, "sound").folder).row_path.read_text())
    assert "joint" not in written["identity"]


def test_an_interrupted_run_resumes_with_what_joint_training_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planned(tmp_path)
    kind = made.method_type
    read: list[list[str]] = []
    whole = kind.fit_joint

    def counted(self: Method, users: Sequence[User]) -> None:
        read.append([user.id for user in users])
        whole(self, users)

    def stops(self: Method, queries: Sequence[Query]) -> Sequence[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(kind, "fit_joint", counted)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kind, "predict", stops)
        LocalExecutor(Silence()).run(made)
    row = finished(made)
    assert read == [[user.id for user in made.dataset.users]]
    assert RunFolder(made.folder).predictions() == expected(made)
    assert row.provenance.resumed == 1 and row.checks["joint_data"].passed


def test_what_joint_training_read_is_compared_with_the_protocol(tmp_path: Path) -> None:
    made = planned(tmp_path)
    folder = RunFolder(made.folder)
    LocalExecutor(Silence()).run(made)
    events = [json.loads(line) for line in folder.journal_path.read_text().splitlines()]
    (fit,) = [event for event in events if event["event"] == "fit_shared"]
    fit["joint"] = "of other users"
    folder.journal_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    folder.row_path.unlink()
    row = finished(made)
    assert row.failed_checks == ("joint_data",)


def test_golds_are_out_of_reach_of_what_joint_training_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planned(tmp_path)
    found: list[str | None] = []
    whole = made.method_type.fit_joint

    def looked_at(self: Method, users: Sequence[User]) -> None:
        found.append(reachable([users], lambda item: item is made.dataset.golds or isinstance(item, LabelledUser)))
        whole(self, users)

    monkeypatch.setattr(made.method_type, "fit_joint", looked_at)
    finished(made)
    assert found == [None]


def test_a_method_that_only_declares_is_refused_before_it_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not override fit_joint and load_shared; expected a fit_joint"):
        planned(tmp_path, "declares-only")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A board of a joint run, and of two that are not."""
    root = tmp_path / "leaderboards"
    made = planned(tmp_path, users=None)
    finished(made)
    add(made.folder, root)
    for method, quality in {"perfit": 0.9, "pag": 0.3}.items():
        add(made_run(tmp_path / "made", TASK, method, quality), root)
    return root


def test_boards_show_a_joint_run_without_a_rank_and_say_why(root: Path) -> None:
    (board,) = boards(read_results(root))
    assert {entry.name: entry.standing for entry in board.entries} == {
        "perfit": "1",
        "pag": "2",
        "sound-joint": "joint",
    }
    write_boards([board], root, ("md", "csv", "json", "tex"))
    assert f"Not ranked: sound-joint: {JOINT}." in (root / "mini" / f"{TASK}.md").read_text(encoding="utf-8")
    (values,) = json.loads((root / "mini" / f"{TASK}.json").read_text(encoding="utf-8"))
    assert [(own["name"], own["rank"], own["joint"]) for own in values["entries"]] == [
        ("perfit", 1, False), ("pag", 2, False), ("sound-joint", None, True),
    ]  # fmt: skip
    assert "joint" in (root / "mini" / f"{TASK}.tex").read_text(encoding="utf-8")
    site = root.parent / "site"
    pages = [path.read_text(encoding="utf-8") for path in write_site([board], site) if path.suffix == ".html"]
    # On the board's page beside the entry, and on the run's own.
    assert sum(JOINT in page or JOINT.capitalize() in page for page in pages) == 2


def test_a_row_that_hides_or_claims_joint_training_is_a_fault(root: Path) -> None:
    golds = KnownGolds()
    assert list(validate(root, golds, lambda identity: None)) == []
    for method, joint in (("sound-joint", False), ("pag", True)):
        (path,) = root.rglob(f"{method}/*/row.json")
        row = json.loads(path.read_text())
        row["identity"] = {**row["identity"], "joint": True}
        if not joint:
            del row["identity"]["joint"]
        row["run_id"] = run_id(row["identity"])
        path.write_text(json.dumps(row))
        path.parent.rename(path.parent.with_name(row["run_id"]))
    faults = [fault.partition(": ")[2] for fault in validate(root, golds, lambda identity: None)]
    assert faults == [
        "identity.joint: True, but pag with this config declares False",
        "identity.joint: False, but sound-joint with this config declares True",
    ]


def test_a_worker_with_one_shard_has_what_joint_training_learned_of_everyone(
    tmp_path: Path, broken_site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is an extra")
    from lampbench.runner.scale import ClusterSettings, RayExecutor

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(broken_site), prepend=os.pathsep)
    made = planned(tmp_path)
    elsewhere = dataclasses.replace(made, folder=made.folder.with_name("on-ray"))
    ray.init(address="local", num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    try:
        (row,) = RayExecutor(Silence(), ClusterSettings(workers=2)).run_all([elsewhere])
    finally:
        ray.shutdown()
    assert isinstance(row, Row), row.error
    assert row.checks["joint_data"].passed and row.environment.workers == 2
    assert RunFolder(elsewhere.folder).predictions() == expected(made)
