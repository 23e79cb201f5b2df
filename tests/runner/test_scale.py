"""Runs on a local Ray of two workers: as in one process, whatever dies on the way."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import scale_methods
from runs import FAST, planner, with_method
from support import Silence

from lampbench.core import InputError, LampBenchError, Method, tasks
from lampbench.rows import Check, Row, read_row
from lampbench.runner import LocalExecutor, Plan, Planner, RunFolder, Settings, use_plugin_file
from lampbench.runner.scale import ClusterSettings, RayExecutor

ray = pytest.importorskip("ray", reason="Ray is an extra")

USERS, COMMAND_USERS = 8, 18
Executed = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray on this machine, which all tests of this file share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Workers import the methods of these tests.
        patch.setenv("PYTHONPATH", str(Path(scale_methods.__file__).parent), prepend=os.pathsep)
        ray.init(address="local", num_cpus=4, include_dashboard=False, configure_logging=False, log_to_driver=False)
    yield
    ray.shutdown()


def on_ray(made: Plan, workers: int = 2, **options: Any) -> Any:
    """The row of a run on Ray."""
    executor = RayExecutor(options.pop("reporter", Silence()), ClusterSettings(workers=workers))
    (row,) = executor.run_all([made], **options)
    return row


def mini(tmp_path: Path, kind: type[Method], user: str = "", **settings: Any) -> Plan:
    """A run of a method on eight users of the bundled suite."""
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    made = Planner(Settings(out=tmp_path / "runs", users=USERS, **settings)).plan("majority", "lamp5", {})
    assert isinstance(made, Plan)
    config = scale_methods.Trouble(str(marks), user)
    return dataclasses.replace(with_method(made, kind), config=config)


def local(made: Plan) -> RunFolder:
    """The folder of the same run in this process."""
    folder = made.folder.with_name(f"{made.folder.name}-local")
    row = LocalExecutor(Silence()).run(dataclasses.replace(made, folder=folder))
    assert row.status == "success", row.error
    return RunFolder(folder)


def some_user(made: Plan) -> str:
    return made.dataset.users[3].id


def same_answers(first: Path, second: Path) -> None:
    for name in ("predictions.jsonl", "predictions.json", "user_sums.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def each_once(folder: RunFolder) -> None:
    """Every query is answered once, and every user adapted once."""
    adapted = Counter(user for event in folder.journal() if event["event"] == "adapt" for user in event["users"])
    assert len(adapted) == USERS
    assert set(adapted.values()) == {1}


def trained(tmp_path: Path) -> Plan:
    made = planner(tmp_path, swap_test=True).plan("perfit", "lamp5", FAST)
    assert isinstance(made, Plan)
    return made


@pytest.fixture(scope="module")
def trained_alone(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The folder of the run in one process."""
    return local(trained(tmp_path_factory.mktemp("alone")))


# One worker alone, and as many as there are users.
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_what_one_process_gives(
    cluster: None, tmp_path: Path, trained_alone: RunFolder, workers: int
) -> None:
    made = trained(tmp_path)
    row = on_ray(made, workers)
    expected: Any = trained_alone.row()
    assert expected is not None
    same_answers(made.folder, trained_alone.path)
    for part in ("metrics", "swap", "checks", "data", "artifacts", "identity"):
        assert getattr(row, part) == getattr(expected, part), part
    assert row.cost.tokens == expected.cost.tokens
    assert row.cost.bytes == expected.cost.bytes
    assert row.environment.workers == workers
    assert row.environment.hardware_class.startswith(f"{workers} workers, each ")


def test_every_kind_of_method_gives_what_it_gives_in_one_process(cluster: None, tmp_path: Path) -> None:
    plans = [planner(tmp_path).plan(method, "lamp2m", {}) for method in ("zero-shot", "majority", "rag", "pag")]
    made = [plan for plan in plans if isinstance(plan, Plan)]
    rows = RayExecutor(Silence(), ClusterSettings(workers=2)).run_all(made)
    assert [row.identity.method for row in rows] == ["zero-shot", "majority", "rag", "pag"]
    for plan, row in zip(made, rows, strict=True):
        alone = local(plan)
        expected: Any = alone.row()
        same_answers(plan.folder, alone.path)
        assert (row.metrics, row.checks) == (expected.metrics, expected.checks)


def test_a_run_is_charged_for_its_own_time_and_not_for_waiting(cluster: None, tmp_path: Path) -> None:
    made_by = planner(tmp_path)
    plans = [made_by.plan(method, "lamp5", {}) for method in ("zero-shot", "majority")]
    made = [plan for plan in plans if isinstance(plan, Plan)]
    began = time.perf_counter()
    rows: Any = RayExecutor(Silence(), ClusterSettings(workers=1)).run_all(made)
    clock = time.perf_counter() - began
    for plan, row in zip(made, rows, strict=True):
        # Data was read before the command's clock began.
        seconds = row.cost.seconds.total - plan.data_seconds
        # One worker: its seconds fit into the clock's, and the clock's into those of the whole command.
        assert 0 < seconds <= row.cost.elapsed + 0.1 < clock
        assert row.cost.seconds.untracked >= 0


def test_force_deletes_nothing_where_there_are_no_workers(cluster: None, tmp_path: Path) -> None:
    made = mini(tmp_path, scale_methods.Careful)
    row = on_ray(made)
    with pytest.raises(InputError, match="--workers 99"):
        on_ray(made, workers=99, force=True)
    assert RunFolder(made.folder).row() == row
    assert on_ray(made, force=True).provenance.resumed == 0


@pytest.mark.parametrize("kind", [scale_methods.KilledInShard, scale_methods.KilledLoading])
def test_a_worker_that_is_killed_costs_no_query(cluster: None, tmp_path: Path, kind: type[Method]) -> None:
    undisturbed = mini(tmp_path, scale_methods.Careful)
    alone = local(undisturbed)
    made = mini(tmp_path, kind, some_user(undisturbed))
    row = on_ray(made)
    assert (tmp_path / "marks" / "killed").exists()
    assert row.status == "success", row.error
    same_answers(made.folder, alone.path)
    each_once(RunFolder(made.folder))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (scale_methods.Poisoned, "no adapting this one"),
        (scale_methods.Deadly, "its worker died"),
        (scale_methods.Sickening, "device-side assert"),
    ],
)
def test_a_poisoned_user_is_named_and_the_others_finish(
    cluster: None, tmp_path: Path, kind: type[Method], reason: str
) -> None:
    undisturbed = mini(tmp_path, scale_methods.Careful)
    alone = local(undisturbed)
    user = some_user(undisturbed)
    made = mini(tmp_path, kind, user)
    (tmp_path / "marks" / "adapted").unlink()
    row = on_ray(made)
    assert row.status == "incomplete"
    assert user in row.error
    assert reason in row.error
    tried = Counter((tmp_path / "marks" / "adapted").read_text().split())
    assert tried[user] == 3
    assert "pid=" not in row.error
    assert "ip=" not in row.error
    assert user in RunFolder(made.folder).log_path.read_text()
    answered = {query.split("-q")[0] for query in RunFolder(made.folder).predictions()}
    # Those who share a unit with the poisoned user wait, before or after.
    failed = {user.id for user in made.dataset.users} - answered
    kept = {user for event in RunFolder(made.folder).journal() if event["event"] == "adapt" for user in event["users"]}
    assert user in failed
    assert user not in kept
    assert len(answered) >= USERS // 2

    (tmp_path / "marks" / "mended").touch()
    (tmp_path / "marks" / "adapted").unlink()
    row = on_ray(made)
    assert row.status == "success", row.error
    assert set((tmp_path / "marks" / "adapted").read_text().split()) == failed - kept
    same_answers(made.folder, alone.path)
    each_once(RunFolder(made.folder))


def test_a_method_that_cannot_be_made_fails_the_run_and_no_users(cluster: None, tmp_path: Path) -> None:
    made = mini(tmp_path, scale_methods.Broken)
    row = on_ray(made)
    assert (row.status, row.error) == ("failed", "RuntimeError: nothing to work with")
    assert "in setup" in RunFolder(made.folder).log_path.read_text()


def test_a_worker_that_hangs_is_stopped_by_the_time_limit(cluster: None, tmp_path: Path) -> None:
    made = mini(tmp_path, scale_methods.Hanging, time_limit=5.0)
    made = dataclasses.replace(made, config=dataclasses.replace(made.config, user=some_user(made)))
    row = on_ray(made)
    assert row.status == "failed"
    assert "the time limit of 5 s is over" in row.error


def test_answers_that_adapting_does_not_change_are_counted_over_all_shards(cluster: None, tmp_path: Path) -> None:
    row = on_ray(mini(tmp_path, scale_methods.Unmoved))
    assert row.status == "success", row.error
    checks = row.checks
    assert checks["adaptation"] == Check(passed=None, asked=2, changed=0)


def test_one_process_resumes_what_workers_began_and_vice_versa(cluster: None, tmp_path: Path) -> None:
    undisturbed = mini(tmp_path, scale_methods.Careful)
    alone = local(undisturbed)
    user = some_user(undisturbed)
    for first, second in ((on_ray, here), (here, on_ray)):
        made = mini(tmp_path, scale_methods.Poisoned, user)
        made = dataclasses.replace(made, folder=tmp_path / first.__name__)
        (tmp_path / "marks" / "mended").unlink(missing_ok=True)
        assert first(made).status in ("incomplete", "failed")
        (tmp_path / "marks" / "mended").touch()
        row = second(made)
        assert row.status == "success", row.error
        assert all(check.passed is not False for check in row.checks.values())
        same_answers(made.folder, alone.path)
        each_once(RunFolder(made.folder))


def here(made: Plan) -> Any:
    return LocalExecutor(Silence()).run(made)


def test_runs_of_one_command_are_one_queue(cluster: None, tmp_path: Path) -> None:
    made_by = planner(tmp_path)
    plans = [
        made_by.plan(method, task, {}) for task in ("lamp3", "lamp5") for method in ("majority", "zero-shot", "rag")
    ]
    made = [plan for plan in plans if isinstance(plan, Plan)]
    reporter = Silence()
    rows = RayExecutor(reporter, ClusterSettings(workers=2)).run_all(made)
    assert [(row.identity.task, row.identity.method) for row in rows] == [
        (plan.task.name, plan.method) for plan in made
    ]
    assert {row.status for row in rows} == {"success"}
    assert reporter.phases == ["6 runs on 2 workers"]
    again = RayExecutor(Silence(), ClusterSettings(workers=2)).run_all(made)
    assert again == rows


def test_of_runs_that_share_a_stage_one_trains_it_and_the_others_wait(cluster: None, tmp_path: Path) -> None:
    plans = []
    for number, user in enumerate(("nobody", "nobody else")):
        made = mini(tmp_path, scale_methods.SharesStage, user)
        plans.append(dataclasses.replace(made, folder=made.folder / str(number)))
    trained, taken = RayExecutor(Silence(), ClusterSettings(workers=2)).run_all(plans)
    assert (tmp_path / "marks" / "fitted").read_text() == "once\n"
    assert isinstance(trained, Row) and isinstance(taken, Row)
    assert trained.cost.taken is None and taken.cost.taken is not None
    assert taken.cost.seconds.fit_shared == trained.cost.seconds.fit_shared
    same_answers(plans[0].folder, plans[1].folder)


def test_workers_get_the_code_of_a_task_in_a_file(cluster: None, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("""
from dataclasses import replace
from lampbench.core import tasks

def anything(output):
    return bool(output)

TASK = replace(tasks().load("lamp5"), name="own-titles", accepts=anything)
""")
    made = planner(tmp_path).plan("majority", "lamp5", {})
    assert isinstance(made, Plan)
    (plugin,) = use_plugin_file(path)
    try:
        row = on_ray(dataclasses.replace(made, task=plugin.target), workers=1)
    finally:
        tasks.cache_clear()
        del sys.modules[plugin.target.accepts.__module__]
    assert row.status == "success", row


def test_a_run_that_another_process_works_on_is_refused(cluster: None, tmp_path: Path) -> None:
    made = mini(tmp_path, scale_methods.Careful)
    with RunFolder(made.folder).held(), pytest.raises(LampBenchError, match=f"process {os.getpid()} is working on"):
        on_ray(made)


def test_more_workers_than_there_is_room_for_are_refused(cluster: None, tmp_path: Path) -> None:
    made = mini(tmp_path, scale_methods.Careful)
    with pytest.raises(InputError, match=r"--workers 5: Ray has 4 CPUs and 0 GPUs.*room for 4"):
        on_ray(made, workers=5)


def test_a_worker_of_other_versions_is_refused(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lampbench.__version__", "0.0.1")
    made = mini(tmp_path, scale_methods.Careful)
    with pytest.raises(InputError, match=r"a worker has lampbench .*, here it is 0.0.1; every machine"):
        on_ray(made)


# --- the whole command


# Like a method that trains, it has a shared stage and a state per user; but it needs no torch, which takes seconds to
# import.
SLOW = """
import time
from pathlib import Path
from lampbench import Method

class Slow(Method):
    needs_backbone = False
    users_at_once = 2

    def setup(self):
        self.last = {}

    def fit_shared(self, users):
        self.shared = len(users)

    def save_shared(self, folder):
        (folder / "shared.txt").write_text(str(self.shared))

    def load_shared(self, folder, users):
        self.shared = int((folder / "shared.txt").read_text())

    def adapt(self, users):
        time.sleep(0.5)
        self.last |= {user.id: user.history[-1].target for user in users}

    def predict(self, queries):
        return [f"{self.last.get(query.user_id)} of {self.shared}" for query in queries]

    def forget(self, user_id):
        self.last.pop(user_id, None)

    def save_user(self, user_id, folder):
        (folder / "last.txt").write_text(self.last[user_id])

    def load_user(self, user, folder):
        self.last[user.id] = (folder / "last.txt").read_text()
"""


def command(tmp_path: Path, *more: str) -> list[str]:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "slow.py").write_text(SLOW)
    return [
        sys.executable, "-m", "lampbench", "run", "--method", "slow", "--plugin", str(tmp_path / "slow.py"), "--task",
        "lamp5", "--users", str(COMMAND_USERS), "--out", str(tmp_path / "runs"), *more,
    ]  # fmt: skip


def started(tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(tmp_path, "--executor", "ray", "--workers", "2", *more),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"},
    )


def another_shard(tmp_path: Path, process: subprocess.Popen[str]) -> RunFolder:
    """The run folder, once this command has brought a shard into it."""
    before = shards(tmp_path)
    for _ in range(1200):
        if len(shards(tmp_path)) > len(before):
            return RunFolder(next((tmp_path / "runs").glob("*/*/*/*/journal.jsonl")).parent)
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no shard came")


def shards(tmp_path: Path) -> list[dict[str, Any]]:
    journals = (tmp_path / "runs").glob("*/*/*/*/journal.jsonl")
    return [event for path in journals for event in RunFolder(path.parent).journal() if event["event"] == "shard"]


def test_a_command_that_ends_in_the_middle_is_continued_by_the_same_one(tmp_path: Path) -> None:
    process = started(tmp_path)
    folder = another_shard(tmp_path, process)
    # As a terminal does: to all processes of the command.
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    row = folder.row()
    assert row is not None
    assert row.status == "incomplete"
    process = started(tmp_path)
    another_shard(tmp_path, process)
    process.kill()
    process.communicate(timeout=120)
    adapted = {user for event in folder.journal() if event["event"] == "adapt" for user in event["users"]}
    assert 0 < len(adapted) < COMMAND_USERS
    process = started(tmp_path)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    alone = subprocess.run(
        command(tmp_path / "alone"), capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert alone.returncode == 0, alone.stderr
    same_answers(folder.path, next((tmp_path / "alone" / "runs").glob("*/*/*/*/row.json")).parent)
    times = Counter(user for event in folder.journal() if event["event"] == "adapt" for user in event["users"])
    assert len(times) == COMMAND_USERS
    assert set(times.values()) == {1}
    row = read_row(folder.path / "row.json")
    assert row.provenance.resumed == 2


def test_a_local_run_never_imports_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from lampbench.cli import main; sys.argv = ['lampbench', 'run', '--method', 'majority', '--task', "
        f"'lamp3', '--out', {str(tmp_path)!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\nassert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
