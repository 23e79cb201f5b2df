"""LongLaMP's published files, in generated ones of their form: what is read, written, asked and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet
from support import TINY_MODEL

from lampbench.cli import cli
from lampbench.core import InputError, LabelledUser, Task, read_task_file
from lampbench.data import Dataset
from lampbench.data.protocols import FolderProtocol
from lampbench.rows import read_row

Record = dict[str, Any]


def abstract(user: int, number: int) -> Record:
    papers = [
        {
            "title": f"On nets {k}",
            "abstract": f"We study nets.\n\nPart {k} of {user}.",
            "year": 2010 + k,
            "id": f"{user}-{k}",
        }
        for k in (1, 0, 2)
    ]
    asked = f'Generate an abstract for the title "Nets of {user}, {number}" using the following items: nets, {user}.'
    return {"name": f"Ann {user}", "input": asked, "output": f"We mend nets {user}.\nTwice.", "profile": papers}


def review(user: int, number: int) -> Record:
    reviews = [
        {
            "overall": "4.0",
            "description": f"a lamp {k}",
            "summary": f"Fine {k}",
            "reviewText": f"Lamp {k} shines on {user}.",
        }
        for k in range(3)
    ]
    asked = (
        'Generate the review text written by a reviewer who has a given an overall rating of "5.0" for a product with '
        f'description "a bulb {number}". The summary of the review text is "Bright".'
    )
    return {"reviewerId": f"A{user}", "input": asked, "output": f"Bright bulb {user}.", "profile": reviews}


def topic(user: int, number: int) -> Record:
    posts = [
        {"author": f"r{user}", "content": f"So, {k}.\n\nEdit: {user}", "summary": f"about {k}", "id": f"p{k}"}
        for k in range(3)
    ]
    asked = f"Generate the content for a reddit post about {number} reddit post rules"
    return {"author": f"r{user}", "input": asked, "output": f"Rules {number}\nof {user}", "profile": posts}


MADE: dict[str, Callable[[int, int], Record]] = {
    "abstract_generation": abstract, "product_review": review, "topic_writing": topic,
}  # fmt: skip


def write(path: Path, records: list[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def publish(folder: Path, form: str, suffix: str = ".parquet") -> Path:
    """Two shared users, and three others of whom two are evaluated under each of val and test; two parts of train."""
    make = MADE[form.rpartition("_")[0]]
    for part in range(2):
        write(folder / form / f"train-0000{part}-of-00002{suffix}", [make(part, 0)])
    write(folder / form / f"val-00000-of-00001{suffix}", [make(2, 0), make(3, 0)])
    write(folder / form / f"test-00000-of-00001{suffix}", [make(3, 1), make(4, 0), make(4, 1)])
    return folder / form


def made(folder: Path, *words: str) -> str:
    result = CliRunner().invoke(cli, ["data", "longlamp", str(folder), *words])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def read(out: Path) -> tuple[Task, Dataset]:
    (path,) = out.glob("*.toml")
    task = read_task_file(path)
    return task, FolderProtocol().load(task, out)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
@pytest.mark.parametrize("form", ["abstract_generation_user", "product_review_temporal", "topic_writing_user"])
def test_users_texts_and_published_prompts_survive(form: str, suffix: str, tmp_path: Path) -> None:
    printed = made(publish(tmp_path, form, suffix), "--out", str(tmp_path / "out"))
    assert "test: 3 questions of 2 users" in printed
    assert "train: 2 questions of 2 users" in printed
    task, data = read(tmp_path / "out")
    source, setting = MADE[form.rpartition("_")[0]], form.rpartition("_")[2]
    assert task.name.startswith("longlamp-")
    assert task.name.endswith(f"-{setting}")
    assert (task.scored_by, task.one_line, task.max_new_tokens) == (("rouge-1", "rouge-L"), False, 600)
    asked = [source(3, 1), source(4, 0), source(4, 1)]
    assert [task.prompt(query.text).text for query in data.queries] == [record["input"] for record in asked]
    assert [data.golds[query.id] for query in data.queries] == [record["output"] for record in asked]
    assert len(data.users) == 2
    assert {len(user.history) for user in data.users} == {3}
    assert len(data.shared) == 2


def history(form: str, tmp_path: Path) -> list[tuple[str, str, str]]:
    made(publish(tmp_path, form), "--out", str(tmp_path / "out"))
    task, data = read(tmp_path / "out")
    user: LabelledUser = next(iter(data.labelled()))
    return [(item.date, task.prompt(item.source).text, task.render(item)) for item in user.user.history]


def test_items_are_asked_about_as_questions_are_and_shown_in_the_published_form(tmp_path: Path) -> None:
    items = history("abstract_generation_user", tmp_path)
    assert [date for date, _, _ in items] == ["2010", "2011", "2012"]
    assert items[0][1:] == (
        'Generate an abstract for the title "On nets 0"',
        '"We study nets.\n\nPart 0 of 3." is the abstract for the title "On nets 0"',
    )
    assert history("topic_writing_temporal", tmp_path / "2")[1][1:] == (
        "Generate the content for a reddit post about 1",
        '"about 1" is a summary for "So, 1.\n\nEdit: 3" ',
    )
    _, asked, shown = history("product_review_user", tmp_path / "3")[2]
    assert asked.endswith(
        'overall rating of "4.0" for a product with description "a lamp 2". The summary of the review text is "Fine 2".'
    )
    assert shown.endswith('is "Fine 2". The review text is "Lamp 2 shines on 3." ')


def test_the_other_split_and_a_folder_of_another_name(tmp_path: Path) -> None:
    folder = publish(tmp_path, "topic_writing_user").rename(tmp_path / "posts")
    printed = made(folder, "--configuration", "topic_writing_user", "--evaluate", "val", "--out", str(tmp_path / "out"))
    assert "val: 2 questions of 2 users" in printed
    with pytest.raises(
        InputError, match="'posts' is no configuration of LongLaMP; expected one of abstract_generation_user"
    ):
        made(folder, "--out", str(tmp_path / "again"))


def test_other_files_are_not_taken_for_longlamp(tmp_path: Path) -> None:
    folder = publish(tmp_path, "topic_writing_user").rename(tmp_path / "product_review_user")
    with pytest.raises(InputError, match=r"column of .* 'reviewerId'"):
        made(folder, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"no file of the split 'test'; expected test\*\.parquet"):
        made(tmp_path, "--configuration", "topic_writing_user", "--out", str(tmp_path / "out"))
    write(tmp_path / "topic_writing_user" / "test.jsonl", [topic(1, 1) | {"input": "Write a poem"}])
    with pytest.raises(InputError, match=r"test\.jsonl: record 1: 'input' is 'Write a poem'; expected 'reddit post '"):
        made(tmp_path / "topic_writing_user", "--out", str(tmp_path / "out"))


def test_what_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    odd = topic(5, 0)
    odd["profile"][0]["content"] = None
    odd["profile"][1]["content"] = "x" * (1 << 20)
    write(tmp_path / "topic_writing_user" / "test.jsonl", [odd, topic(6, 0), topic(7, 0) | {"output": " "}])
    folder = tmp_path / "topic_writing_user"
    with pytest.raises(InputError, match=r"'output' is .*; 1 of 3 rows cannot be read, and --tolerate 0.01 allows 0"):
        made(folder, "--out", str(tmp_path / "out"))
    printed = made(folder, "--tolerate", "0.5", "--out", str(tmp_path / "out"))
    assert "left out, they cannot be read: 1" in printed
    assert "history items left out, without text or too long: 2" in printed
    _, data = read(tmp_path / "out")
    assert [len(user.history) for user in data.users] == [1, 3]


def test_profiles_as_a_record_of_lists_are_the_same(tmp_path: Path) -> None:
    records = [review(1, 0), review(2, 0)]
    write(tmp_path / "a" / "test.jsonl", records)
    columns = [
        r | {"profile": {name: [item[name] for item in r["profile"]] for name in r["profile"][0]}} for r in records
    ]
    write(tmp_path / "b" / "test.jsonl", columns)
    hashes = []
    for name in ("a", "b"):
        made(tmp_path / name, "--configuration", "product_review_user", "--out", str(tmp_path / f"out-{name}"))
        hashes.append(read(tmp_path / f"out-{name}")[1].hash)
    assert hashes[0] == hashes[1]


def test_three_methods_run_on_it(tmp_path: Path) -> None:
    out, runs = tmp_path / "out", tmp_path / "runs"
    made(publish(tmp_path, "topic_writing_user"), "--out", str(out))
    (toml,) = out.glob("*.toml")
    # Long answers of an untrained model say no more than short ones, and take longer.
    toml.write_text(toml.read_text().replace("max_new_tokens = 600", "max_new_tokens = 12"))
    words = ["run", "--method", "zero-shot,rag,perfit", "--task", str(toml), "--protocol", "folder", "--data", str(out)]
    result = CliRunner().invoke(cli, [*words, "--model", str(TINY_MODEL), "--out", str(runs)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [read_row(path) for path in runs.rglob("row.json")]
    assert {row.identity.method for row in rows} == {"zero-shot", "rag", "perfit"}
    assert all(row.metrics["rouge-1"].primary and row.data.queries == 3 for row in rows)
