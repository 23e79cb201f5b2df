import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer, serve
from support import TASK_NAMES, task

from lampbench.core import InputError, LampBenchError
from lampbench.data.download import (
    OFFICIAL_SOURCE,
    Fetched,
    Patience,
    RemoteFile,
    Setting,
    fetch,
    remote_files,
)

QUICK = Patience(connect=2, read=2, waits=(0.001, 0.001, 0.001))
QUESTIONS = RemoteFile("time/LaMP_5/dev/dev_questions.json", "LaMP_5/dev/dev_questions.json")
OUTPUTS = RemoteFile("time/LaMP_5/dev/dev_outputs.json", "LaMP_5/dev/dev_outputs.json")
LOCK = "lamp.lock.json"


@dataclass
class Steps:
    """Every step of every bar, by file."""

    files: list[str] = field(default_factory=list)
    moves: list[tuple[int, int | None]] = field(default_factory=list)

    @contextmanager
    def file(self, name: str) -> Iterator["Steps"]:
        self.files.append(name)
        yield self

    def move(self, done: int, total: int | None) -> None:
        self.moves.append((done, total))


def questions(seed: int = 0, size: int = 300_000) -> bytes:
    """A JSON list of about ``size`` bytes that no compression or repetition could explain."""
    digits = random.Random(seed).randbytes(size // 2).hex()
    return json.dumps([{"id": "1", "input": digits}]).encode()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """What the source has, in its layout."""
    folder = tmp_path / "official"
    (folder / QUESTIONS.path).parent.mkdir(parents=True)
    (folder / QUESTIONS.path).write_bytes(questions())
    (folder / OUTPUTS.path).write_text('{"task": "LaMP_5", "golds": []}\n')
    return folder


@pytest.fixture
def server(official: Path) -> Iterator[FileServer]:
    with serve(official) as state:
        yield state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def target(folder: Path) -> Path:
    return folder / QUESTIONS.local


def get(
    source: str, folder: Path, files: tuple[RemoteFile, ...] = (QUESTIONS,), patience: Patience = QUICK
) -> list[Fetched]:
    return list(fetch(files, folder, source=source, progress=Steps(), patience=patience))


def fails(kind: type[LampBenchError], source: str, folder: Path, patience: Patience = QUICK) -> str:
    """The message of a download of the questions that must fail."""
    with pytest.raises(LampBenchError) as caught:
        get(source, folder, patience=patience)
    assert type(caught.value) is kind, caught.value
    message = str(caught.value)
    assert message.isprintable(), message
    return message


def lock(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / LOCK).read_text())["files"]
    return value


def write_lock(folder: Path, content: bytes) -> None:
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOCK).write_text(json.dumps({"files": {QUESTIONS.path: entry}}))


def part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def note(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def leave_part(server: FileServer, folder: Path, size: int) -> None:
    """A download of the questions that broke after ``size`` bytes, and every further attempt at once."""
    server.cut_after = [size, 0, 0, 0, 0]
    fails(LampBenchError, server.url, folder)
    assert part(folder / QUESTIONS.local).stat().st_size == size
    assert server.cut_after == []
    server.asked.clear()


# Which files


@pytest.mark.parametrize(
    ("setting", "name", "path"),
    [
        ("lamp-user", "lamp3", "LaMP_3/train/train_questions.json"),
        ("lamp-time", "lamp7", "time/LaMP_7/train/train_questions.json"),
        ("lamp-user", "lamp2m", "LaMP_2/new/train/train_questions.json"),
        ("lamp-time", "lamp2m", "time/LaMP_2/new/train/train_questions.json"),
        ("lamp-user", "lamp2n", "LaMP_2/train/train_questions.json"),
        ("lamp-time", "lamp2n", "time/LaMP_2/train/train_questions.json"),
    ],
)
def test_the_official_paths(setting: Setting, name: str, path: str) -> None:
    assert remote_files(setting, task(name), ["train"])[0].path == path
    assert OFFICIAL_SOURCE == "https://ciir.cs.umass.edu/downloads/LaMP"


@pytest.mark.parametrize("name", TASK_NAMES)
def test_files_lie_where_the_protocol_folder_reads_them(name: str) -> None:
    root = task(name).official[0]
    assert [file.local for file in remote_files("lamp-time", task(name), ["train", "dev", "test"])] == [
        f"{root}/train/train_questions.json",
        f"{root}/train/train_outputs.json",
        f"{root}/dev/dev_questions.json",
        f"{root}/dev/dev_outputs.json",
        f"{root}/test/test_questions.json",
    ]


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(InputError, match="unknown split 'devv'; did you mean 'dev'"):
        remote_files("lamp-user", task("lamp5"), ["devv"])


# A download that goes well


def test_what_is_served_is_in_place_and_in_the_lock(server: FileServer, folder: Path, target: Path) -> None:
    fetched = get(server.url, folder, (QUESTIONS, OUTPUTS))
    content = questions()
    sha256 = hashlib.sha256(content).hexdigest()
    assert fetched[0] == Fetched(target, len(content), sha256, "downloaded")
    assert target.read_bytes() == content
    assert lock(folder)[QUESTIONS.path] == {"bytes": len(content), "sha256": sha256}
    assert list(lock(folder)) == sorted([QUESTIONS.path, OUTPUTS.path])
    assert [asked.path for asked in server.asked] == [f"/LaMP/{QUESTIONS.path}", f"/LaMP/{OUTPUTS.path}"]
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        ".lamp.lock", "dev_outputs.json", "dev_questions.json", LOCK,
    ]  # fmt: skip


def test_progress_ends_with_all_bytes(server: FileServer, folder: Path) -> None:
    steps, size = Steps(), len(questions())
    list(fetch([QUESTIONS], folder, source=server.url, progress=steps, patience=QUICK))
    assert steps.files == [QUESTIONS.local]
    assert steps.moves[0] == (0, size)
    assert steps.moves[-1] == (size, size)
    assert steps.moves == sorted(steps.moves)


def test_progress_of_a_resumed_file_begins_where_it_resumes(server: FileServer, folder: Path) -> None:
    leave_part(server, folder, 200_000)
    steps = Steps()
    list(fetch([QUESTIONS], folder, source=server.url, progress=steps, patience=QUICK))
    assert steps.moves[0] == (200_000, len(questions()))


@pytest.mark.parametrize("how", ["no_length", "chunked"])
def test_a_file_of_unannounced_length_is_taken_if_it_is_whole(
    server: FileServer, folder: Path, target: Path, how: str
) -> None:
    setattr(server, how, True)
    assert get(server.url, folder)[0].how == "downloaded"
    assert target.read_bytes() == questions()


def test_a_name_and_password_in_the_source_are_not_written_down(server: FileServer, folder: Path, target: Path) -> None:
    server.cut_after = [1000, 0, 0, 0, 0]
    message = fails(LampBenchError, server.url.replace("//", "//me:secret@"), folder)
    assert "secret" not in message
    assert "secret" not in note(target).read_text()
    assert json.loads(note(target).read_text())["url"] == f"{server.url}/{QUESTIONS.path}"


# What is in place already


def test_a_file_in_place_is_kept_and_nothing_is_asked(server: FileServer, folder: Path) -> None:
    first = get(server.url, folder)[0]
    server.asked.clear()
    second = get(server.url, folder)[0]
    assert second.how == "kept"
    assert (second.bytes, second.sha256) == (first.bytes, first.sha256)
    assert server.asked == []


def test_ones_own_copy_is_recorded_and_kept(server: FileServer, folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(b" [1]\n")
    assert get(server.url, folder)[0].how == "kept"
    assert lock(folder) == {QUESTIONS.path: {"bytes": 5, "sha256": hashlib.sha256(b" [1]\n").hexdigest()}}
    assert server.asked == []


def test_ones_own_copy_that_is_cut_short_is_refused(server: FileServer, folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(questions()[:-1])
    message = fails(InputError, server.url, folder)
    assert message.startswith(f"{target}: not whole JSON: it ends with '")
    assert not (folder / LOCK).exists()


def test_a_file_that_is_not_the_locks_is_refused_and_stays(server: FileServer, folder: Path, target: Path) -> None:
    get(server.url, folder)
    before = (folder / LOCK).read_bytes()
    other = questions(1)
    target.write_bytes(other)
    message = fails(InputError, server.url, folder)
    assert message == (
        f"{target}: its SHA-256 is {digits(other)}…, but {LOCK} says {digits(questions())}…; delete the file "
        f"to fetch it again, or the entry {QUESTIONS.path!r} in the lock to accept it"
    )
    assert target.read_bytes() == other
    assert (folder / LOCK).read_bytes() == before


def digits(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


@pytest.mark.parametrize("there", [True, False])
def test_the_settings_do_not_mix_in_a_folder(server: FileServer, folder: Path, target: Path, there: bool) -> None:
    get(server.url, folder)
    if not there:
        target.unlink()
    server.asked.clear()
    user_based = RemoteFile("LaMP_5/dev/dev_questions.json", QUESTIONS.local)
    with pytest.raises(InputError, match=r"holds files of lamp-time .* fetch lamp-user into another folder"):
        get(server.url, folder, (user_based,))
    assert server.asked == []


def test_the_settings_do_not_mix_in_one_call(server: FileServer, folder: Path) -> None:
    with pytest.raises(InputError, match=r"fetch lamp-user into another folder"):
        get(server.url, folder, (QUESTIONS, RemoteFile("LaMP_5/dev/dev_questions.json", QUESTIONS.local)))
    assert server.asked == []


# The lock


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"files": []}',
        '{"files": {}, "more": 1}',
        '{"files": {"a": 1}}',
        '{"files": {"a": {"bytes": 1}}}',
        '{"files": {"a": {"bytes": true, "sha256": "%s"}}}' % ("0" * 64),
        '{"files": {"a": {"bytes": -1, "sha256": "%s"}}}' % ("0" * 64),
        '{"files": {"a": {"bytes": 1, "sha256": "%s"}}}' % ("0" * 63),
        '{"files": {"a": {"bytes": 1, "sha256": "%s", "more": 1}}}' % ("0" * 64),
    ],
)
def test_a_damaged_lock_is_an_error_and_stays(server: FileServer, folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / LOCK).write_text(content)
    assert f"{folder / LOCK}: damaged: " in fails(InputError, server.url, folder)
    assert (folder / LOCK).read_text() == content
    assert server.asked == []


def test_a_lock_that_is_not_text_is_damaged(server: FileServer, folder: Path) -> None:
    folder.mkdir()
    (folder / LOCK).write_bytes(b"\xff\xfe")
    assert "damaged" in fails(InputError, server.url, folder)


def test_other_bytes_than_the_locks_are_not_put_in_place(server: FileServer, folder: Path, target: Path) -> None:
    write_lock(folder, questions(1))
    before = (folder / LOCK).read_bytes()
    message = fails(LampBenchError, server.url, folder)
    assert digits(questions()) in message
    assert digits(questions(1)) in message
    assert list(target.parent.iterdir()) == []
    assert (folder / LOCK).read_bytes() == before


def test_a_deleted_file_comes_back_as_it_was(server: FileServer, folder: Path, target: Path) -> None:
    get(server.url, folder)
    target.unlink()
    assert get(server.url, folder)[0].how == "downloaded"
    assert target.read_bytes() == questions()


# Connections that break


@pytest.mark.parametrize("validator", ["etag", "weak", "date"])
@pytest.mark.parametrize("seed", range(4))
def test_wherever_the_connection_breaks_the_bytes_are_the_same(
    server: FileServer, folder: Path, target: Path, seed: int, validator: str
) -> None:
    generator = random.Random(seed)
    server.validator = validator
    server.reset = seed % 2 == 1
    server.chunked = seed == 2
    server.cut_after = [generator.randrange(100_000) for _ in range(4)]
    # A reset may take bytes along that had already come.
    how = get(server.url, folder, patience=Patience(2, 2, (0.001,) * 5))[0].how
    assert how == ("resumed" if any(server.ranges()) else "downloaded")
    assert how == "resumed" or server.reset
    assert target.read_bytes() == questions()
    assert len(server.asked) == 5


def test_a_resume_asks_for_the_rest_of_the_same_version(server: FileServer, folder: Path, target: Path) -> None:
    leave_part(server, folder, 123_456)
    assert not target.exists()
    assert get(server.url, folder)[0].how == "resumed"
    assert target.read_bytes() == questions()
    assert server.ranges() == ["bytes=123456-"]
    assert server.asked[0].encoding == "identity"
    assert server.asked[0].if_range == f'"{hashlib.sha256(questions()).hexdigest()[:16]}"'
    assert list(target.parent.iterdir()) == [target]


def test_a_download_that_gets_nowhere_says_how_far_it_came(server: FileServer, folder: Path, target: Path) -> None:
    server.cut_after = [200_000, 0, 0, 0, 0, 0]
    message = fails(LampBenchError, server.url, folder)
    assert f"200,000 of {len(questions()):,} bytes were received, then: the connection was closed; " in message
    assert "the same command resumes there" in message
    assert len(server.asked) == 5
    assert part(target).read_bytes() == questions()[:200_000]


def test_attempts_that_bring_something_do_not_count_as_failures(server: FileServer, folder: Path, target: Path) -> None:
    server.cut_after = [1000] * 20
    get(server.url, folder)
    assert target.read_bytes() == questions()


@pytest.mark.parametrize("ignoring", ["ignore_range", "validator"])
def test_a_file_that_cannot_be_resumed_starts_over(
    server: FileServer, folder: Path, target: Path, ignoring: str
) -> None:
    setattr(server, ignoring, "none" if ignoring == "validator" else True)
    server.cut_after = [200_000, 100_000]
    assert get(server.url, folder)[0].how == "downloaded"
    assert target.read_bytes() == questions()
    expected = [None, None, None] if ignoring == "validator" else [None, "bytes=200000-", "bytes=100000-"]
    assert server.ranges() == expected


def test_starting_over_again_and_again_comes_to_an_end(server: FileServer, folder: Path) -> None:
    server.ignore_range = True
    server.cut_after = [200_000] * 20
    fails(LampBenchError, server.url, folder)
    assert len(server.asked) == 5


@pytest.mark.parametrize("wrong", ["wrong_range", "wrong_total"])
@pytest.mark.parametrize("by", [-7, 7])
def test_a_range_that_was_not_asked_for_is_not_appended(
    server: FileServer, folder: Path, target: Path, wrong: str, by: int
) -> None:
    leave_part(server, folder, 200_000)
    setattr(server, wrong, by)
    server.cut_after = [400_000, 100_000]
    get(server.url, folder)
    assert target.read_bytes() == questions()
    # Once is enough: after that, no range is asked for.
    assert server.ranges() == ["bytes=200000-", None, None]


@pytest.mark.parametrize("ignore_if_range", [False, True])
@pytest.mark.parametrize("size", [100_000, 300_000, 400_000])
def test_a_part_of_an_older_version_is_not_resumed(
    server: FileServer, official: Path, folder: Path, target: Path, size: int, ignore_if_range: bool
) -> None:
    leave_part(server, folder, 200_000)
    newer = questions(1, size)
    (official / QUESTIONS.path).write_bytes(newer)
    server.ignore_if_range = ignore_if_range
    assert get(server.url, folder)[0].how == "downloaded"
    assert target.read_bytes() == newer
    assert server.ranges() == (["bytes=200000-", None] if ignore_if_range else ["bytes=200000-"])


@pytest.mark.parametrize("change", ["other url", "damaged", "absent", "longer than the file"])
def test_a_part_of_unknown_origin_is_not_resumed(server: FileServer, folder: Path, target: Path, change: str) -> None:
    leave_part(server, folder, 200_000)
    if change == "other url":
        note(target).write_text(note(target).read_text().replace("127.0.0.1", "127.0.0.2"))
    elif change == "damaged":
        note(target).write_text('{"url"')
    elif change == "absent":
        note(target).unlink()
    else:
        part(target).write_bytes(questions() + b"]")
    assert get(server.url, folder)[0].how == "downloaded"
    assert target.read_bytes() == questions()
    assert server.ranges() == [None]


def test_a_whole_part_is_checked_and_put_in_place(server: FileServer, folder: Path, target: Path) -> None:
    leave_part(server, folder, 200_000)
    part(target).write_bytes(questions())
    assert get(server.url, folder)[0].how == "resumed"
    assert target.read_bytes() == questions()
    assert server.asked == []


def test_a_whole_part_of_an_unknown_version_is_fetched_anew(server: FileServer, folder: Path, target: Path) -> None:
    server.validator = "none"
    server.cut_after = [0, 0, 0, 0]
    fails(LampBenchError, server.url, folder)
    part(target).write_bytes(questions(1))
    get(server.url, folder)
    assert target.read_bytes() == questions()


def test_a_range_that_comes_in_pieces_is_put_together(server: FileServer, folder: Path, target: Path) -> None:
    leave_part(server, folder, 200_000)
    server.piece = 60_000
    assert get(server.url, folder)[0].how == "resumed"
    assert target.read_bytes() == questions()
    assert server.ranges() == ["bytes=200000-", "bytes=260000-"]


def test_a_server_that_falls_silent_is_asked_again(server: FileServer, folder: Path, target: Path) -> None:
    server.stall_after = 150_000
    get(server.url, folder, patience=Patience(2, 0.15, (0.001,) * 8))
    assert target.read_bytes() == questions()
    assert len(server.asked) > 1


def test_a_server_that_stays_silent_is_given_up(server: FileServer, folder: Path) -> None:
    server.stall_after = 0
    message = fails(LampBenchError, server.url, folder, Patience(2, 0.2, (0.001,)))
    assert "no bytes for 0.2 s" in message
    assert len(server.asked) == 2


CHILD = """
import sys
from contextlib import contextmanager
from pathlib import Path
from lampbench.data.download import RemoteFile, fetch

class Silent:
    @contextmanager
    def file(self, name):
        yield self
    def move(self, done, total):
        pass

source, folder, path, local = sys.argv[1:]
list(fetch([RemoteFile(path, local)], Path(folder), source=source, progress=Silent()))
"""


def test_a_killed_download_resumes_and_keeps_other_processes_out_while_it_runs(
    server: FileServer, folder: Path, target: Path
) -> None:
    server.stall_after = 200_000
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, server.url, str(folder), QUESTIONS.path, QUESTIONS.local],
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60
        while not part(target).exists() or part(target).stat().st_size < 100_000:
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert f"process {child.pid} is downloading into {folder}" in fails(LampBenchError, server.url, folder)
        assert len(server.asked) == 1
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    size = part(target).stat().st_size
    assert not target.exists()
    assert not (folder / LOCK).exists()
    server.stall_after = None
    assert get(server.url, folder)[0].how == "resumed"
    assert target.read_bytes() == questions()
    assert server.ranges() == [None, f"bytes={size}-"]


# Answers that are not the file


def test_more_was_announced_than_comes(server: FileServer, folder: Path, target: Path) -> None:
    server.wrong_length = 50
    size = len(questions())
    assert f"{size:,} of {size + 50:,} bytes were received" in fails(LampBenchError, server.url, folder)
    assert not target.exists()


def test_less_was_announced_than_the_file_has(server: FileServer, folder: Path, target: Path) -> None:
    server.wrong_length = -50
    assert "not whole JSON: it ends with" in fails(LampBenchError, server.url, folder)
    assert list(target.parent.iterdir()) == []


def test_more_comes_than_was_announced(server: FileServer, folder: Path, target: Path) -> None:
    leave_part(server, folder, 200_000)
    server.surplus = b"  ]"
    message = fails(LampBenchError, server.url, folder)
    assert f"more bytes were sent than the {len(questions()):,} that were announced" in message
    assert list(target.parent.iterdir()) == []


def test_a_cut_that_nothing_announces_is_found_in_the_bytes(server: FileServer, folder: Path, target: Path) -> None:
    server.no_length = True
    server.cut_after = [200_000]
    assert "not whole JSON" in fails(LampBenchError, server.url, folder)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html>\n\x1b[31m<title>Sorry</title>" + b"x" * 99, b'{"error": 1}', b" \n", b""]
)
def test_a_page_in_place_of_the_file_is_refused(server: FileServer, folder: Path, target: Path, page: bytes) -> None:
    server.page = page
    message = fails(LampBenchError, server.url, folder)
    assert ("empty" if not page.strip() else f"not JSON: it begins with {page.decode()[:40]!r}") in message
    assert list(target.parent.iterdir()) == []
    assert not (folder / LOCK).exists()


def test_outputs_must_be_an_object(server: FileServer, official: Path, folder: Path) -> None:
    (official / OUTPUTS.path).write_text("[]")
    with pytest.raises(LampBenchError, match=r"not JSON: it begins with '\[\]'"):
        get(server.url, folder, (OUTPUTS,))


def test_a_packed_answer_is_refused(server: FileServer, folder: Path, target: Path) -> None:
    server.headers = {"Content-Encoding": "gzip"}
    assert "packed ('gzip')" in fails(LampBenchError, server.url, folder)
    assert not target.exists()


def test_a_redirect_to_a_file_of_this_machine_is_refused(server: FileServer, official: Path, folder: Path) -> None:
    server.statuses = [302]
    server.headers = {"Location": (official / QUESTIONS.path).as_uri()}
    fails(LampBenchError, server.url, folder)
    assert not (folder / LOCK).exists()


def test_a_redirect_to_a_server_is_followed(server: FileServer, folder: Path) -> None:
    server.statuses = [302]
    server.headers = {"Location": f"{server.url}/{QUESTIONS.path}"}
    assert get(server.url, folder)[0].how == "downloaded"
    assert len(server.asked) == 2


# Sources that say no, or nothing


def test_a_file_that_is_not_there_names_its_url(server: FileServer, official: Path, folder: Path) -> None:
    (official / QUESTIONS.path).unlink()
    message = fails(InputError, server.url, folder)
    assert message == f"{server.url}/{QUESTIONS.path}: the server answers 404 Not Found; is --source right?"
    assert len(server.asked) == 1


def test_a_server_that_is_busy_is_asked_again(server: FileServer, folder: Path, target: Path) -> None:
    server.statuses = [503, 500, 429]
    get(server.url, folder)
    assert target.read_bytes() == questions()


def test_a_server_that_stays_busy_is_given_up(server: FileServer, folder: Path) -> None:
    server.statuses = [503] * 9
    assert "the server answers 503 Service Unavailable; try again later" in fails(LampBenchError, server.url, folder)
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("status", "text"), [(401, "401 Unauthorized"), (403, "403 Forbidden"), (204, "204 No Content")]
)
def test_a_refusal_is_not_asked_twice(server: FileServer, folder: Path, status: int, text: str) -> None:
    server.statuses = [status]
    assert f"the server answers {text}" in fails(LampBenchError, server.url, folder)
    assert len(server.asked) == 1


def test_an_error_leaves_the_part(server: FileServer, folder: Path, target: Path) -> None:
    leave_part(server, folder, 200_000)
    server.statuses = [503] * 9
    assert "200,000 bytes are here, the same command resumes" in fails(LampBenchError, server.url, folder)
    assert part(target).read_bytes() == questions()[:200_000]


def unreachable(source: str, folder: Path) -> str:
    message = fails(LampBenchError, source, folder)
    assert message.startswith(f"cannot reach {source}/{QUESTIONS.path}: ")
    assert f"put it at {folder / QUESTIONS.local}, or name a mirror or a folder with --source" in message
    return message


def test_nobody_listens(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "Connection refused" in unreachable(f"http://127.0.0.1:{port}/LaMP", folder)


def test_no_name_service(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    assert "Name or service not known" in unreachable("https://files.invalid/LaMP", folder)


def test_a_blocked_network_is_waited_for_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def no_answer(*_: object, **__: object) -> None:
        calls.append(1)
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib3.util.connection.create_connection", no_answer)
    assert "no answer within 2 s" in unreachable("http://127.0.0.1:9/LaMP", folder)
    assert len(calls) == 1


def test_a_server_that_answered_before_is_waited_for(
    server: FileServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def no_answer(*_: object, **__: object) -> None:
        calls.append(1)
        raise TimeoutError("timed out")

    steps = fetch([OUTPUTS, QUESTIONS], folder, source=server.url, progress=Steps(), patience=QUICK)
    assert next(steps).how == "downloaded"
    monkeypatch.setattr("urllib3.util.connection.create_connection", no_answer)
    with pytest.raises(LampBenchError, match="0 bytes were received, then: no answer within 2 s"):
        next(steps)
    assert len(calls) == 4


def test_a_server_without_tls(server: FileServer, folder: Path) -> None:
    assert "SSL" in unreachable(server.url.replace("http:", "https:"), folder)


# Folders as sources


@pytest.mark.parametrize("form", ["path", "url"])
def test_a_folder_is_copied(official: Path, folder: Path, target: Path, form: str) -> None:
    spaced = official.rename(official.with_name("official copy"))
    fetched = get(str(spaced) if form == "path" else spaced.as_uri(), folder, (QUESTIONS, OUTPUTS))
    assert [file.how for file in fetched] == ["downloaded", "downloaded"]
    assert target.read_bytes() == questions()
    assert set(lock(folder)) == {QUESTIONS.path, OUTPUTS.path}
    assert sorted(path.name for path in target.parent.iterdir()) == ["dev_outputs.json", "dev_questions.json"]


def test_a_folder_is_checked_as_a_server_is(official: Path, folder: Path, target: Path) -> None:
    (official / QUESTIONS.path).write_bytes(questions()[:-1])
    assert "not whole JSON" in fails(LampBenchError, str(official), folder)
    (official / QUESTIONS.path).write_bytes(questions())
    write_lock(folder, questions(1))
    assert digits(questions(1)) in fails(LampBenchError, str(official), folder)
    assert list(target.parent.iterdir()) == []


def test_a_folder_without_the_file_is_named(official: Path, folder: Path) -> None:
    (official / QUESTIONS.path).unlink()
    expected = f"{official / QUESTIONS.path}: no such file; a mirror has the layout of LaMP's server"
    assert fails(InputError, str(official), folder).startswith(expected)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/no/such/folder", "no such folder"),
        ("file:///no/such/folder", "no such folder"),
        ("file://host/tmp", r"files of another host \(host\)"),
        ("ftp://host/x", "expected http"),
        ("http:///x", "expected http"),
    ],
)
def test_a_wrong_source_is_named(folder: Path, source: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"--source {source}: {reason}"):
        get(source, folder)
    assert not folder.exists()


# Disks


def test_a_full_disk_is_noticed_before_the_download(
    server: FileServer, folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_part(server, folder, 200_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 99_000}))
    expected = f"needs {len(questions()) - 200_000:,} more bytes on a disk that has 99,000 free"
    assert expected in fails(InputError, server.url, folder)
    assert part(target).stat().st_size == 200_000
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": len(questions()) - 200_000}))
    assert get(server.url, folder)[0].how == "resumed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this machine")
def test_a_disk_that_fills_up_is_named(server: FileServer, folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    part(target).symlink_to("/dev/full")
    message = fails(LampBenchError, server.url, folder)
    assert message.startswith(f"{part(target)}: No space left on device; ")
    assert part(target).is_symlink()
    assert not target.exists()
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("blocked", ["", "LaMP_5"])
def test_a_folder_that_cannot_be_made_is_named(server: FileServer, folder: Path, blocked: str) -> None:
    if blocked:
        folder.mkdir()
    (folder / blocked).write_text("a file")
    assert "; choose another folder" in fails(InputError, server.url, folder)
    assert server.asked == []
