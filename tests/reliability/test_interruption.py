"""Signals, a second process, a full disk, limits: a clear line each, and nothing that was finished is lost."""

import dataclasses
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from runs import plan, run, with_method
from support import Silence

from lampbench.core import InputError, LampBenchError, Method, Query, User
from lampbench.runner import LocalExecutor, Plan, RunFolder, Settings, _limits, limit_memory


class Counting(Method):
    """Answers with the length of the history; what a subclass does on the way is its matter."""

    needs_backbone = False
    users_at_once = 1

    def setup(self) -> None:
        self.known: dict[str, int] = {}
        self.calls = 0

    def adapt(self, users: Sequence[User]) -> None:
        self.known.update({user.id: len(user.history) for user in users})
        self.on_adapt()

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        if all(query.user_id in self.known for query in queries):
            self.on_predict()
        return [str(self.known.get(query.user_id, 0)) for query in queries]

    def forget(self, user_id: str) -> None:
        self.known.pop(user_id, None)

    def save_user(self, user_id: str, folder: Path) -> None:
        (folder / "length").write_text(str(self.known[user_id]))

    def load_user(self, user: User, folder: Path) -> None:
        self.known[user.id] = int((folder / "length").read_text())

    def on_adapt(self) -> None: ...

    def on_predict(self) -> None: ...


def made(tmp_path: Path, kind: type[Method], **settings: Any) -> Plan:
    # One query a batch: a run has many places to stop at.
    return with_method(plan(tmp_path, "majority", batch_size=1, **settings), kind)


def continued(of: Plan, tmp_path: Path) -> Any:
    """The row when the same run is gone on with by a method that does nothing special."""
    return run(dataclasses.replace(of, method_type=Counting), tmp_path)


def undisturbed(tmp_path: Path) -> bytes:
    other = made(tmp_path / "undisturbed", Counting)
    run(other, tmp_path / "undisturbed")
    return (other.folder / "predictions.json").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["on_adapt", "on_predict"])
def test_the_first_signal_stops_a_run_after_its_batch_and_nothing_is_lost(
    number: signal.Signals, where: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    signalled = type("Signalled", (Counting,), {where: lambda self: os.kill(os.getpid(), number)})
    broken = made(tmp_path, signalled)
    reporter = Silence()
    with pytest.raises(KeyboardInterrupt):
        run(broken, tmp_path, reporter)
    folder = RunFolder(broken.folder)
    assert "stopping after the current batch or step; once more stops at once" in capfd.readouterr().err
    users, queries = len(broken.dataset.users), len(broken.dataset.queries)
    answered = len(RunFolder(broken.folder).predictions())
    assert reporter.said[-1] == (
        f"lamp5 majority: interrupted: 1 of {users} users and {answered} of {queries} queries are done; "
        "repeat the command to resume"
    )
    row = folder.row()
    assert row is not None
    assert row.status == "incomplete"
    # What was under way when the signal came is kept.
    assert [event["event"] for event in folder.journal()].count("adapt") == 1
    assert bool(folder.predictions()) == (where == "on_predict")
    assert continued(broken, tmp_path).status == "success"
    assert (broken.folder / "predictions.json").read_bytes() == undisturbed(tmp_path)


def test_the_second_signal_stops_a_run_at_once(tmp_path: Path) -> None:
    def twice(self: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    broken = made(tmp_path, type("Signalled", (Counting,), {"on_predict": twice}))
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(broken, tmp_path)
    assert time.monotonic() - start < 5
    assert RunFolder(broken.folder).predictions() == {}
    assert continued(broken, tmp_path).status == "success"


def test_a_signal_while_a_method_is_loaded_stops_the_run_before_anything_else(tmp_path: Path) -> None:
    class Loading(Counting):
        def setup(self) -> None:
            super().setup()
            os.kill(os.getpid(), signal.SIGINT)

        def predict(self, queries: Sequence[Query]) -> Sequence[str]:
            raise AssertionError("nothing was to be asked")

    broken = made(tmp_path, Loading)
    with pytest.raises(KeyboardInterrupt):
        run(broken, tmp_path)
    row = RunFolder(broken.folder).row()
    assert row is not None
    assert row.status == "incomplete"


def test_signals_mean_afterwards_what_they_meant_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(made(tmp_path, Counting), tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


HOLDER = """
import sys, time
from pathlib import Path
from lampbench.runner import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_on_one_run_is_refused_with_the_firsts_id(tmp_path: Path) -> None:
    wanted = made(tmp_path, Counting)
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(wanted.folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        for force in (False, True):
            with pytest.raises(LampBenchError, match=f"process {first.pid} is working on the run in"):
                run(wanted, tmp_path, force=force)
    finally:
        first.kill()
        first.communicate()
    # However it ended, the run is free again.
    assert run(wanted, tmp_path).status == "success"


def test_looking_at_a_run_that_is_under_way_changes_no_byte(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.journal_path, folder.predictions_path):
        path.write_bytes(b'{"event": "other", "id": "a", "user": "b", "output": "c"}\n{"id": "half')
    before = folder.journal_path.read_bytes()
    assert (len(folder.journal()), len(folder.predictions())) == (1, 1)
    assert folder.journal_path.read_bytes() == folder.predictions_path.read_bytes() == before
    with folder.held():
        assert (
            folder.journal_path.read_bytes()
            == folder.predictions_path.read_bytes()
            == before[: before.index(b"\n") + 1]
        )


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The file system refuses to let files grow beyond ``size`` bytes, as a full one does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Bulky(Counting):
    """Has a state of some size."""

    def save_user(self, user_id: str, folder: Path) -> None:
        super().save_user(user_id, folder)
        (folder / "ballast").write_bytes(bytes(2500))


@pytest.mark.parametrize("size", [1, 150, 400, 700, 1200, 2000, 2400, 2600, 3500])
def test_a_full_disk_is_reported_and_the_run_resumes_when_there_is_room(size: int, tmp_path: Path) -> None:
    broken = made(tmp_path, Bulky)
    finished: dict[str, Any] | None = None
    with files_of_at_most(size):
        try:
            finished = run(broken, tmp_path)
        except LampBenchError as error:
            assert "cannot write" in str(error)
            assert "File too large; finished work is kept" in str(error)
            assert "\n" not in str(error)
        assert finished is None
    folder = RunFolder(broken.folder)
    assert all(record["event"] for record in folder.journal())
    row = folder.row()
    assert row is None or row.status != "success"
    assert continued(broken, tmp_path).status == "success"
    assert (broken.folder / "predictions.json").read_bytes() == undisturbed(tmp_path)


def test_an_earlier_result_survives_a_full_disk(tmp_path: Path) -> None:
    done = made(tmp_path, Counting)
    run(done, tmp_path)
    before = {path.name: path.read_bytes() for path in done.folder.iterdir() if path.is_file()}
    settings = Settings("folder", done.settings.data, out=tmp_path, batch_size=1, swap_test=True)
    with files_of_at_most(1), pytest.raises(LampBenchError, match="cannot write"):
        LocalExecutor(Silence()).run(dataclasses.replace(done, settings=settings))
    after = {path.name: path.read_bytes() for path in done.folder.iterdir() if path.is_file()}
    assert {name: after[name] for name in before if name not in ("run.log", "run.lock")} == {
        name: content for name, content in before.items() if name not in ("run.log", "run.lock")
    }


def test_a_run_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file where a folder has to be")
    with pytest.raises(InputError, match=r"cannot make .*; choose another --out"):
        run(made(tmp_path, Counting), tmp_path)


def hang(self: Any) -> None:
    while True:
        time.sleep(0.01)


def hang_and_swallow(self: Any) -> None:
    """Takes the first alarm for its own trouble, and goes on."""
    try:
        hang(self)
    except Exception:
        hang(self)


@pytest.mark.parametrize("where", ["on_adapt", "on_predict"])
@pytest.mark.parametrize("hangs", [hang, hang_and_swallow])
def test_a_method_that_hangs_is_stopped_by_the_time_limit(
    hangs: Callable[[Any], None], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_limits, "_AGAIN", 0.5)
    broken = made(tmp_path, type("Hanging", (Counting,), {where: hangs}), time_limit=1.0)
    row = LocalExecutor(Silence()).run(broken)
    assert row.status == "failed"
    phase = where.removeprefix("on_")
    assert (
        row.error == f"{phase}: the time limit of 1 s is over; repeat the command with a longer --time-limit to resume"
    )
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert continued(broken, tmp_path).status == "success"


def hang_in_native_code(self: Any) -> None:
    """Gives Python no chance to look at signals."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)


def test_a_method_that_hangs_in_native_code_is_stopped_with_the_process_and_the_run_resumes(tmp_path: Path) -> None:
    broken = made(tmp_path, type("Native", (Counting,), {"on_predict": hang_in_native_code}), time_limit=5.0)
    child = os.fork()
    if child == 0:
        _limits._GRACE = 1.0
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        LocalExecutor(Silence()).run(broken)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert continued(broken, tmp_path).status == "success"


def test_a_limit_that_is_not_reached_changes_nothing(tmp_path: Path) -> None:
    free = made(tmp_path, Counting, time_limit=500.0)
    assert LocalExecutor(Silence()).run(free).status == "success"
    assert (free.folder / "predictions.json").read_bytes() == undisturbed(tmp_path)


@pytest.fixture
def memory_limit() -> Iterator[Callable[[float], None]]:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    yield lambda gibibytes: limit_memory(gibibytes, "cpu")
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_method_that_asks_for_memory_without_end_fails_alone(
    tmp_path: Path, memory_limit: Callable[[float], None]
) -> None:
    import psutil

    def hoard(self: Any) -> None:
        self.hoard = []
        while True:
            self.hoard.append(bytearray(1 << 26))

    memory_limit(psutil.Process().memory_info().data / 2**30 + 1)
    broken = made(tmp_path, type("Hungry", (Counting,), {"on_predict": hoard}))
    row = run(broken, tmp_path)
    assert row.status == "failed"
    assert row.error.startswith("predict: out of memory (MemoryError); use a smaller --batch-size or model")
    assert continued(broken, tmp_path).status == "success"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_limit_below_what_the_program_needs_is_refused() -> None:
    with pytest.raises(InputError, match=r"--memory-limit 0.001: the program alone uses .* GiB"):
        limit_memory(0.001, "cpu")


def test_on_a_gpu_memory_is_limited_only_on_request() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(None, "cuda:0")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
