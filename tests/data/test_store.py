"""Splits in tables: what is stored is what the files say, whole or not at all."""

import gc
import hashlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support import TINY_DATA, task

from lampbench.core import HistoryItem, InputError, LabelledQuery, LabelledUser, Query, Task, User, cache_folder
from lampbench.data import Dataset
from lampbench.data.files import Block, LampSplit, ReadingLog, Source
from lampbench.data.protocols import FolderProtocol
from lampbench.data.store import Selection, Split, StoredHistory, stored_split

DEV = TINY_DATA / "LaMP_5" / "dev"


def store(folder: Path = DEV, *, cached: bool = True, source: Source | None = None) -> Split:
    return stored_split([source or LampSplit(folder)], task("lamp5"), cached=cached, say=lambda text: None)


@dataclass(frozen=True)
class Watched(LampSplit):
    """A split during whose reading something happens; ``reads`` counts how often it is read."""

    happens: Callable[[], Any] = lambda: None
    reads: list[int] = field(default_factory=list)

    def read(self, task: Task, log: ReadingLog) -> tuple[str | None, Iterator[Block]]:
        self.reads.append(1)
        label, blocks = super().read(task, log)
        return label, self._interrupted(blocks)

    def _interrupted(self, blocks: Iterator[Block]) -> Iterator[Block]:
        yield from blocks
        self.happens()


def as_written(folder: Path) -> list[LabelledUser]:
    """The users of a folder, by the simplest code there is."""
    questions = json.loads((folder / f"{folder.name}_questions.json").read_text())
    golds = {g["id"]: g["output"] for g in json.loads((folder / f"{folder.name}_outputs.json").read_text())["golds"]}
    users: dict[str, LabelledUser] = {}
    for question in questions:
        items = sorted(question["profile"], key=lambda item: item["date"])
        history = tuple(HistoryItem(item["id"], item["abstract"], item["title"], item["date"]) for item in items)
        text = task("lamp5").source_text(question["input"], "")
        asked = LabelledQuery(Query(question["id"], question["user_id"], text), golds[question["id"]])
        before = users.get(question["user_id"])
        queries = (*(before.queries if before else ()), asked)
        users[question["user_id"]] = LabelledUser(User(question["user_id"], history), queries)
    return list(users.values())


@pytest.mark.parametrize("cached", [True, False])
def test_stored_users_are_those_of_the_files(cached: bool) -> None:
    stored = Selection.whole(store(cached=cached))
    assert list(stored) == as_written(DEV)
    assert stored[-1] == stored[len(stored) - 1]
    assert list(stored[1:]) == as_written(DEV)[1:]


def test_histories_of_more_than_one_batch_are_read_back(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEV, tmp_path / "dev"))
    path = folder / "dev_questions.json"
    questions = json.loads(path.read_text())
    for question in questions:
        question["profile"][0]["abstract"] = f"{question['user_id']} " * 3_500_000
    path.write_text(json.dumps(questions))
    assert list(Selection.whole(store(folder))) == as_written(folder)
    (table,) = (cache_folder() / "splits").glob("*/histories.arrow")
    with pa.ipc.open_stream(table) as stream:
        assert sum(1 for _ in stream) > 1


def test_a_history_is_stored_once_however_many_questions_come_with_it(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEV, tmp_path / "dev"))
    store(folder)
    ask_again(folder, 50)
    split = store(folder)
    assert len(split.queries(0)) == 52
    sizes = [path.stat().st_size for path in (cache_folder() / "splits").glob("*/histories.arrow")]
    assert sizes[0] == sizes[1]


def ask_again(folder: Path, times: int) -> None:
    """More questions of the first user, behind everyone else's."""
    path, golds = folder / "dev_questions.json", folder / "dev_outputs.json"
    questions, outputs = json.loads(path.read_text()), json.loads(golds.read_text())
    for number in range(times):
        questions.append({**questions[0], "id": f"again-{number}"})
        outputs["golds"].append({"id": f"again-{number}", "output": "A title"})
    path.write_text(json.dumps(questions))
    golds.write_text(json.dumps(outputs))


def test_the_tables_open_in_datasets() -> None:
    import datasets

    split = store()
    folder = cache_folder() / "splits" / str(split.key)
    rows = datasets.Dataset.from_file(str(folder / "histories.arrow"))
    users = datasets.Dataset.from_file(str(folder / "users.arrow"))
    assert [len(row["items"]) for row in rows] == split.lengths
    assert users[0]["id"] == split.ids[0]
    assert users[0]["queries"][0]["id"] == split.queries(0)[0].query.id


def test_the_same_files_are_converted_once(tmp_path: Path) -> None:
    source = Watched(DEV)
    first, again = store(source=source), store(source=source)
    assert len(source.reads) == 1
    moved = Watched(Path(shutil.copytree(DEV, tmp_path / "LaMP_5" / "dev")))
    assert list(Selection.whole(first)) == list(Selection.whole(again)) == list(Selection.whole(store(source=moved)))
    assert not moved.reads


@pytest.mark.parametrize("damage", ["cut", "missing", "manifest", "version"])
def test_a_damaged_cache_is_made_again(damage: str) -> None:
    folder = cache_folder() / "splits" / str(store().key)
    gc.collect()
    if damage == "cut":
        table = folder / "histories.arrow"
        table.write_bytes(table.read_bytes()[:-9])
    elif damage == "missing":
        (folder / "users.arrow").unlink()
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{")
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 0}))
    assert list(Selection.whole(store())) == as_written(DEV)


def test_a_file_that_is_replaced_while_it_is_read_is_not_stored(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEV, tmp_path / "dev"))
    with pytest.raises(InputError, match=r"dev_questions\.json: changed while it was read"):
        store(source=Watched(folder, lambda: ask_again(folder, 1)))
    assert list((cache_folder() / "splits").iterdir()) == []


def test_another_process_may_convert_first() -> None:
    assert list(Selection.whole(store(source=Watched(DEV, store)))) == as_written(DEV)
    assert [path.name for path in (cache_folder() / "splits").iterdir()] == [store().key]


@pytest.mark.parametrize("error", [InputError("wrong"), KeyboardInterrupt(), MemoryError()])
def test_nothing_is_left_of_a_conversion_that_ends_early(error: BaseException) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(type(error)):
        store(source=Watched(DEV, fails))
    assert list((cache_folder() / "splits").iterdir()) == []


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limits here")
def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEV, tmp_path / "data" / "LaMP_5" / "dev"))
    ask_again(folder, 2000)
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "from lampbench.cli import main; main()"
    )
    arguments = ["describe", "protocol", "folder", "--task", "lamp5", "--data", str(tmp_path / "data")]
    cache = tmp_path / "small"
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--cache", str(cache)],
        capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert f"cannot write the cache {cache / 'splits'}: File too large" in result.stderr
    assert "--cache or LAMPBENCH_CACHE" in result.stderr
    assert list((cache / "splits").iterdir()) == []


def test_a_cache_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot write the cache .*: Not a directory; .* --cache"):
        store()


def test_in_memory_nothing_touches_the_cache() -> None:
    store(cached=False)
    assert not cache_folder().exists()


def test_a_history_is_read_when_it_is_first_used() -> None:
    items = store().history(0, 0, 3)
    reads: list[int] = []

    def read() -> Any:
        reads.append(1)
        return items

    history = StoredHistory(3, read)
    assert len(history) == 3
    assert repr(history) == "<history of 3 items>"
    assert not reads
    whole = tuple(items.items())
    assert (history[0], history[-1], history[1:]) == (whole[0], whole[2], whole[1:])
    assert history == whole
    assert hash(history) == hash(whole)
    assert history != whole[1:]
    assert reads == [1]
    copy = pickle.loads(pickle.dumps(history))
    assert type(copy) is tuple
    assert copy == whole


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, list[str]]:
    """A split with a large questions file, and the path of every hashing of that file."""
    hashed: list[str] = []
    original = hashlib.file_digest

    def watch(stream: Any, algorithm: str) -> Any:
        hashed.extend([stream.name] if stream.name.endswith("dev_questions.json") else [])
        return original(stream, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", watch)
    folder = Path(shutil.copytree(DEV, tmp_path / "dev"))
    with (folder / "dev_questions.json").open("a") as stream:
        stream.write(" " * (16 << 20))
    return folder, hashed


def test_a_large_file_is_hashed_once_and_again_when_it_changes(large: tuple[Path, list[str]]) -> None:
    folder, hashed = large
    first = store(folder).key
    assert store(folder).key == first
    assert len(hashed) == 1
    path = folder / "dev_questions.json"
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\n")
    # The same size and the same time of change: the inode's own time tells.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store(folder).key != first
    assert len(hashed) == 2


@pytest.mark.parametrize("record", ["", "[]", '{"sha256": 1}'])
def test_a_damaged_fingerprint_is_ignored(large: tuple[Path, list[str]], record: str) -> None:
    folder, hashed = large
    first = store(folder).key
    for path in (cache_folder() / "fingerprints").iterdir():
        path.write_text(record)
    assert store(folder).key == first
    assert len(hashed) == 2


def test_a_large_file_that_changes_while_it_is_hashed_is_refused(
    large: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = large
    original = hashlib.file_digest

    def meanwhile(stream: Any, algorithm: str) -> Any:
        with (folder / "dev_questions.json").open("a") as file:
            file.write(" ")
        return original(stream, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", meanwhile)
    with pytest.raises(InputError, match=r"dev_questions\.json: changes while it is read"):
        store(folder)


def test_a_dataset_of_plain_users_is_named_like_the_stored_one() -> None:
    stored = FolderProtocol().load(task("lamp5"), TINY_DATA)
    plain = [as_written(TINY_DATA / "LaMP_5" / split) for split in ("train", "dev")]
    made = Dataset.of(task("lamp5"), *plain, sources={})
    assert (made.hash, made.leaks) == (stored.hash, stored.leaks)
    assert (list(made.users), made.queries, made.golds) == (list(stored.users), stored.queries, stored.golds)
    assert made.labelled() == stored.labelled()
