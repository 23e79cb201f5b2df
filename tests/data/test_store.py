"""Splits in tables: what is stored is what the files say, whole or not at all."""

import gc
import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import TINY_DATA, task

from lampbench.core import HistoryItem, InputError, LabelledQuery, LabelledUser, Query, User, cache_folder
from lampbench.data import Dataset
from lampbench.data.files import LampSplit
from lampbench.data.protocols import FolderProtocol
from lampbench.data.store import Selection, Split, StoredHistory, _cache, _convert, _fingerprint, _tables, stored_split

DEV = TINY_DATA / "LaMP_5" / "dev"


def store(folder: Path = DEV, *, cached: bool = True) -> Split:
    return stored_split([LampSplit(folder)], task("lamp5"), cached=cached, say=lambda text: None)


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
@pytest.mark.parametrize("batch", [1, 500, 16 << 20])
def test_stored_users_are_those_of_the_files(monkeypatch: pytest.MonkeyPatch, cached: bool, batch: int) -> None:
    monkeypatch.setattr(_tables, "_BATCH_BYTES", batch)
    stored = Selection.whole(store(cached=cached))
    assert list(stored) == as_written(DEV)
    assert stored[-1] == stored[len(stored) - 1]
    assert list(stored[1:]) == as_written(DEV)[1:]


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


def test_the_same_files_are_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    convert = _convert.convert

    def counted(*arguments: Any) -> Split:
        calls.append(arguments)
        return convert(*arguments)

    monkeypatch.setattr(_cache, "convert", counted)
    first, again = store(), store()
    moved = store(Path(shutil.copytree(DEV, tmp_path / "elsewhere" / "dev")))
    assert len(calls) == 1 + (moved.facts.sources != first.facts.sources)
    assert list(Selection.whole(first)) == list(Selection.whole(again)) == list(Selection.whole(moved))


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


def test_a_file_that_is_replaced_while_it_is_read_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(DEV, tmp_path / "dev"))
    convert = _convert.convert

    def after_a_change(*arguments: Any) -> Split:
        ask_again(folder, 1)
        return convert(*arguments)

    monkeypatch.setattr(_cache, "convert", after_a_change)
    with pytest.raises(InputError, match=r"dev_questions\.json: changed while it was read"):
        store(folder)
    assert list((cache_folder() / "splits").iterdir()) == []


def test_another_process_may_convert_first(monkeypatch: pytest.MonkeyPatch) -> None:
    convert = _convert.convert

    def after_another(*arguments: Any) -> Split:
        monkeypatch.setattr(_cache, "convert", convert)
        store()
        return convert(*arguments)

    monkeypatch.setattr(_cache, "convert", after_another)
    assert list(Selection.whole(store())) == as_written(DEV)
    assert [path.name for path in (cache_folder() / "splits").iterdir()] == [store().key]


@pytest.mark.parametrize("error", [InputError("wrong"), KeyboardInterrupt(), MemoryError()])
def test_nothing_is_left_of_a_conversion_that_ends_early(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fails(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("lampbench.data.store._convert.TableWriter.finish", fails)
    with pytest.raises(type(error)):
        store()
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


def test_a_history_is_read_when_it_is_looked_into() -> None:
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
def remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, list[Path]]:
    """A file that counts as large, and every time that a file was hashed."""
    hashed: list[Path] = []
    original: Callable[[Path], str] = _fingerprint._hash

    def watch(path: Path) -> str:
        hashed.append(path)
        return original(path)

    monkeypatch.setattr(_fingerprint, "_SMALL", 0)
    monkeypatch.setattr(_fingerprint, "_hash", watch)
    path = tmp_path / "large.json"
    path.write_bytes(b"[1]")
    return path, hashed


def test_a_large_file_is_hashed_once_and_again_when_it_changes(remembered: tuple[Path, list[Path]]) -> None:
    path, hashed = remembered
    first = _fingerprint.file_sha256(path)
    assert _fingerprint.file_sha256(path) == first
    assert len(hashed) == 1
    before = path.stat()
    path.write_bytes(b"[2]")
    # The same size and the same time of change: the inode's own time tells.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert _fingerprint.file_sha256(path) != first
    assert len(hashed) == 2


def test_a_damaged_fingerprint_is_no_fingerprint(remembered: tuple[Path, list[Path]]) -> None:
    path, hashed = remembered
    first = _fingerprint.file_sha256(path)
    for record in (cache_folder() / "fingerprints").iterdir():
        record.write_text(random.choice(["", "[]", '{"sha256": 1}']))
    assert _fingerprint.file_sha256(path) == first
    assert len(hashed) == 2


def test_a_file_that_changes_while_it_is_read_is_refused(
    remembered: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = remembered
    original = _fingerprint._hash

    def meanwhile(file: Path) -> str:
        file.write_bytes(b"[1, 2, 3]")
        return original(file)

    monkeypatch.setattr(_fingerprint, "_hash", meanwhile)
    with pytest.raises(InputError, match=r"large\.json: changes while it is read"):
        _fingerprint.file_sha256(path)


def test_a_dataset_of_plain_users_is_named_like_the_stored_one() -> None:
    stored = FolderProtocol().load(task("lamp5"), TINY_DATA)
    plain = [as_written(TINY_DATA / "LaMP_5" / split) for split in ("train", "dev")]
    made = Dataset.of(task("lamp5"), *plain, sources={})
    assert (made.hash, made.leaks) == (stored.hash, stored.leaks)
    assert (list(made.users), made.queries, made.golds) == (list(stored.users), stored.queries, stored.golds)
    assert made.labelled() == stored.labelled()
