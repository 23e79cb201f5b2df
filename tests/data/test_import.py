"""``lampbench data import``: from a table of a user's own texts to files that ``--protocol folder`` reads."""

import csv
import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from lampbench.cli._main import cli
from lampbench.core import LampBenchError, tasks
from lampbench.data.protocols import FolderProtocol
from lampbench.runner import load_task

TASK = """
name = "import-mails"
instruction = "Write this person's reply."
source = ["subject", "received"]
target = "reply"
max_new_tokens = 8
"""
HEADER = ("sender", "subject", "received", "reply", "sent")
# The last are not in order of time, and scripts differ.
ROWS = [
    ("ann", f"s{n}", f"Ann, {n}?\nΓειά, 你好", f"reply {n}", f"2024-01-{day:02d}")
    for n, day in enumerate([1, 2, 3, 4, 9, 8, 7])
] + [("ben", f"s{n}", f"Ben, {n}?", f"no {n}", f"2024-02-0{n + 1}") for n in range(6)]
COLUMNS = ("--user", "sender", "--date", "sent", "--queries", "2", "--shared", "0")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with a task file; the task is unknown to other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    Path("mails.toml").write_text(TASK)
    yield tmp_path
    tasks.cache_clear()


def table(rows: Sequence[Sequence[object]] = ROWS, header: Sequence[str] = HEADER, name: str = "mails.csv") -> str:
    with Path(name).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return name


def imported(*arguments: str, task: str = "mails.toml", columns: Sequence[str] = COLUMNS) -> str:
    """What an import that must succeed prints."""
    command = ["data", "import", *arguments, *columns, "--task", task, "--out", "OUT"]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str, task: str = "mails.toml", columns: Sequence[str] = COLUMNS) -> str:
    """The error of an import that must fail; nothing may be left behind."""
    with pytest.raises(LampBenchError) as error:
        imported(*arguments, task=task, columns=columns)
    assert error.value.exit_status == 2
    assert not Path("OUT").exists()
    return str(error.value)


def data(task: str = "mails.toml") -> Any:
    return FolderProtocol().load(load_task(task), Path("OUT"))


def test_the_latest_texts_are_asked_about_and_the_others_are_history() -> None:
    imported(table())
    found = data()
    ann, ben = found.labelled()
    assert (ann.user.id, ben.user.id) == ("ann", "ben")
    assert [item.target for item in ann.user.history] == ["reply 0", "reply 1", "reply 2", "reply 3", "reply 6"]
    assert [(own.target, own.query.date) for own in ann.queries] == [
        ("reply 5", "2024-01-08"),
        ("reply 4", "2024-01-09"),
    ]
    assert ann.queries[0].query.text == "subject: s5\nreceived: Ann, 5?\nΓειά, 你好"
    assert not any(leak.count for leak in found.leaks if leak.name in ("later_history", "query_in_history"))


def test_a_text_that_is_repeated_stays_where_it_is_first() -> None:
    first, *later = ROWS[:7]
    imported(table([first, *later, (*first[:4], "2024-01-20"), *ROWS[7:]]))
    ann = data().labelled()[0]
    assert [item.target for item in ann.user.history] == ["reply 0", "reply 1", "reply 2", "reply 3", "reply 6"]
    assert [own.target for own in ann.queries] == ["reply 5", "reply 4"]


def test_the_commands_that_are_printed_can_be_copied_for_any_path() -> None:
    task = str(Path("mails.toml").rename("my mails.toml"))
    command = ["data", "import", table(), *COLUMNS, "--task", task, "--out", "my data"]
    printed = CliRunner().invoke(cli, command, catch_exceptions=False).output
    assert printed.count("--task 'my mails.toml' --data 'my data'") == 2


def test_without_dates_rows_are_in_time_order() -> None:
    printed = imported(table(), columns=("--user", "sender", "--shared", "0"))
    assert "dates: none" in printed
    assert [own.target for own in data().labelled()[0].queries] == ["reply 5", "reply 6"]


def saved(kind: str) -> str:
    """The same rows in another kind of file."""
    records = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    if kind == "jsonl":
        Path("mails.jsonl").write_text("\n".join(map(json.dumps, records)))
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(records), "mails.parquet")
    elif kind == "semicolons":
        text = "\n".join(";".join(row).replace("\n", " ") for row in [HEADER, *ROWS])
        Path("mails.semicolons").write_text(text)
        return str(Path("mails.semicolons").rename("semicolons.csv"))
    else:
        datasets.Dataset.from_list(records).save_to_disk("mails.folder")
    return f"mails.{kind}"


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder"])
def test_every_kind_of_table_gives_the_same_users(kind: str) -> None:
    imported(table())
    before = data().hash
    Path("OUT").rename("CSV")
    imported(saved(kind))
    assert data().hash == before


def test_semicolons_and_cells_of_another_encoding_are_read() -> None:
    imported(saved("semicolons"))
    Path("OUT").rename("FIRST")
    rows = [[cell.replace("Γειά, 你好", "café") for cell in row] for row in ROWS]
    Path(table(rows)).write_bytes(Path("mails.csv").read_text(encoding="utf-8").encode("cp1252"))
    assert "line 2 is not UTF-8" in refused("mails.csv") or "line 3 is not UTF-8" in refused("mails.csv")
    imported("mails.csv", "--encoding", "cp1252")
    assert "café" in data().labelled()[0].user.history[0].source


def test_an_encoding_may_be_spelled_in_any_way_and_one_that_does_not_exist_is_named() -> None:
    Path(table()).write_bytes(b"\xef\xbb\xbf" + Path("mails.csv").read_bytes())
    imported("mails.csv", "--encoding", "UTF8")
    Path("OUT").rename("FIRST")
    for name in ("utf-88", "rot13"):
        assert "no such encoding" in refused("mails.csv", "--encoding", name)


def test_columns_of_other_names_fill_the_task_s_fields() -> None:
    names = ("--source", "Betreff,Text", "--target", "Antwort", *COLUMNS)
    imported(table(header=("sender", "Betreff", "Text", "Antwort", "sent")), columns=names)
    assert data().labelled()[1].queries[0].query.text == "subject: s4\nreceived: Ben, 4?"


def test_shared_users_are_drawn_by_the_seed_whatever_the_order_of_rows() -> None:
    rows = [(f"u{n}", "s", f"text {n} {i}", f"r{i}", f"2024-01-0{i + 1}") for n in range(20) for i in range(6)]
    drawn = []
    for order, seed in ((rows, "0"), (rows[::-1], "0"), (rows, "1")):
        imported(table(order), "--seed", seed, columns=("--user", "sender", "--date", "sent", "--shared", "0.4"))
        found = data()
        drawn.append({own.user.id for own in found.shared})
        assert len(drawn[-1]) == 8
        assert drawn[-1].isdisjoint(user.id for user in found.users)
        Path("OUT").rename(f"OUT{len(drawn)}")
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_is_left_out_and_what_looks_wrong_is_reported_before_anything_is_written() -> None:
    rows = [
        *ROWS,
        ROWS[0],
        ("cid", "s", "only one", "yes", "2024"),
        ("Ann ", "s", "r", "y", "2024"),
        ("ann", "s", "r", "", "2024"),
        ("ann", "", "", "yes", "2024"),
        ("ben", "s", "long", "word " * 9, "2023"),
        ("ben", "s", "garbled", "caf\u00c3\u00a9", "2023"),
        ("ben", "s", "r", "y", "19.2.2015"),
    ]
    printed = imported(table(rows), "--tolerate", "0.1", "--dry-run")
    for line in (
        "rows: 21",
        "left out, the source is empty: 1",
        "left out, the target is empty: 1",
        "left out, they cannot be read: 1",
        "left out, the same user's same text again: 1",
        "dates: 2023 to 2024-02-06",
        "users: 4",
        "left out, too few texts: 2",
        "evaluated: 2, with 4 queries",
        "'Ann' and 'ann'",
        "1 targets have more words than the task's max_new_tokens (8)",
        "1 targets look like UTF-8 that was read as another encoding",
        "'sent' is '19.2.2015'",
        "nothing was written",
    ):
        assert line in printed
    assert not Path("OUT").exists()


def test_a_share_of_rows_is_tolerated_whatever_its_binary_form() -> None:
    rows = [("ann", "s", f"r{n}", f"y{n}", "2024" if n < 71 else "19.2.2015") for n in range(100)]
    # 0.29 times 100 is a little less than 29.
    assert "left out, they cannot be read: 29" in imported(table(rows), "--tolerate", "0.29", "--dry-run")
    assert "29 of 100 rows cannot be read" in refused(table(rows), "--tolerate", "0.28")


def test_labels_and_ratings_are_checked_and_counted() -> None:
    Path("kind.toml").write_text(TASK.replace("max_new_tokens = 8", 'kind = "labels"\nlabels = "from the data"'))
    rows = [("ann", "s", f"r{n}", label, "2024") for n, label in enumerate("aabbbc")]
    assert "1 labels occur once, and nobody can learn them: 'c'" in imported(table(rows), "--dry-run", task="kind.toml")
    assert "a label is one line" in refused(table([("ann", "s", "r", "a\nb", "2024")]), task="kind.toml")
    tasks.cache_clear()
    Path("kind.toml").write_text(TASK.replace("max_new_tokens = 8", 'kind = "rating"\nscale = [1, 5]'))
    rows = [("ann", "s", f"r{n}", stars, "2024") for n, stars in enumerate(["1", "2.0", "3", "4", "5", "5"])]
    imported(table(rows), task="kind.toml")
    assert [item.target for item in data("kind.toml").users[0].history] == ["1", "2", "3", "4"]
    Path("OUT").rename("RATED")
    rows[0] = ("ann", "s", "r", "7", "2024")
    assert "'reply' is '7', no answer of import-mails" in refused(table(rows), task="kind.toml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sendr,subject,received,reply,sent\n", "did you mean 'sendr'"),
        ("sender,subject,received,reply,sent\n", "there are no rows"),
        ("", "the file is empty"),
        ("sender,subject,received,reply,sent\nann,a,b\n", "line 2: it has 3 cells, and the header has 5"),
        ('sender,subject,received,reply,sent\nann,a,b,"c,2024\n', "is a quote never closed"),
        ('sender,subject,received,reply,sent\nann,a,b,"=SUM(A1:A2)",2024\n', "a formula or its error"),
        ("sender,subject,received,reply,sent\nann,a,b,c,19.2.2015\n", "expected YYYY-MM-DD"),
        ("sender,subject,received,reply,sent\n,a,b,c,2024\n", "the user, is empty"),
        ("sender,subject,received,reply,sent\nann,a,b,c,2024\n", "the longest has 1"),
        ("sender,sender,subject,received,reply,sent\n", "'sender' occurs 2 times"),
        ("PK\x03\x04", "save it as CSV"),
    ],
)
def test_a_wrong_table_gives_one_line_and_leaves_nothing(content: str, said: str) -> None:
    Path("wrong.csv").write_text(content)
    assert said in refused("wrong.csv")


def test_a_folder_of_several_splits_and_an_unknown_kind_of_file_are_refused() -> None:
    rows = datasets.Dataset.from_list([{"sender": "ann"}])
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk("both")
    assert "name the folder of one of them" in refused("both")
    Path("mails.doc").write_text("text")
    assert "unknown kind of file '.doc'" in refused("mails.doc")
    assert "no such file" in refused("none.csv")


def test_an_import_that_was_killed_can_be_repeated() -> None:
    # Killed when the first file is in place under its temporary name.
    code = (
        "import os, signal, sys; from pathlib import Path; from lampbench.data.imports import _import as module\n"
        "module.export = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.argv = ['lampbench', *sys.argv[1:]]; from lampbench.cli import main; main()"
    )
    command = ["data", "import", table(), *COLUMNS, "--task", "mails.toml", "--out", "OUT"]
    killed = subprocess.run([sys.executable, "-c", code, *command], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert any(Path("OUT").iterdir())
    imported("mails.csv")
    assert [path.name for path in Path("OUT").iterdir()] == ["import-mails"]


def test_a_full_disk_is_named_and_nothing_is_left(place: Path) -> None:
    command = [sys.executable, "-m", "lampbench", "data", "import", table(), *COLUMNS, "--task", "mails.toml"]
    result = subprocess.run(
        [*command, "--out", "OUT"],
        capture_output=True,
        text=True,
        check=False,
        # The file system refuses larger files, as a full one does.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert result.returncode == 1, result.stderr
    assert re.fullmatch(r"error: \S+/texts\.sqlite: [A-Z].+\n", result.stderr)
    assert not (place / "OUT").exists()
