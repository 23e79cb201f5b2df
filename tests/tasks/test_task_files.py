"""Tasks that a file describes: what is read, what is refused, and how runs find them again."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import TINY_MODEL, Silence

from lampbench.api import Look, data_at, task_names
from lampbench.core import (
    HistoryItem,
    InputError,
    LabelledQuery,
    LabelledUser,
    Query,
    Task,
    TaskFile,
    User,
    find_kept_task,
    keep_task,
    tasks,
)
from lampbench.data.files import Exported, export
from lampbench.leaderboard import KnownGolds, Recount, add, read_result, validate
from lampbench.metrics import score
from lampbench.runner import LocalExecutor, Plan, Planner, Settings, load_task
from lampbench.testing import task_cases

TEXT = """
name = "file-mails"
instruction = "Write this person's reply."
source = ["subject", "received"]
target = "reply"
ends = "--"
max_new_tokens = 4
"""
LABELS = """
name = "file-folders"
kind = "labels"
labels = ["home", "work"]
instruction = "Which folder: {labels}?"
source = "received"
target = "folder"
"""
RATING = """
name = "file-stars"
kind = "rating"
scale = [0, 10]
instruction = "How many stars?"
source = "received"
target = "stars"
"""


def written(folder: Path, text: str, name: str = "task.toml") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def read(folder: Path, text: str) -> Task:
    return load_task(written(folder, text))


@pytest.mark.parametrize(
    "text",
    [TEXT, LABELS, LABELS.replace('["home", "work"]', '"from the data"'), RATING],
    ids=["text", "labels", "labels from the data", "rating"],
)
def test_a_file_of_each_kind_keeps_the_contract_of_tasks(text: str, tmp_path: Path) -> None:
    name = read(tmp_path, text).name
    for case in task_cases(name):
        case.run()


def test_golds_alone_do_not_tell_the_labels_of_the_data(tmp_path: Path) -> None:
    own = read(tmp_path, LABELS.replace('["home", "work"]', '"from the data"'))
    with pytest.raises(InputError, match="the labels of file-folders are those of the data"):
        score(own, ["home", "work"], ["home", "home"])


def test_several_source_fields_stand_line_by_line_in_the_prompt(tmp_path: Path) -> None:
    own = read(tmp_path, TEXT)
    assert own.definition is not None
    text = own.definition.joined({"subject": "Lunch", "received": "At one?"})
    assert own.prompt(text).text == "Write this person's reply.\nsubject: Lunch\nreceived: At one?\nreply:"
    assert own.definition.joined({"subject": " ", "received": "At one?"}) == "received: At one?"


def test_an_answer_is_cut_where_the_file_says_that_it_ends(tmp_path: Path) -> None:
    assert read(tmp_path, TEXT).ended("Yes,\nat one.\n-- \nAnn") == "Yes,\nat one."


def test_the_file_s_own_prompt_is_used(tmp_path: Path) -> None:
    prompt = '[prompt]\nquestion = "Q: {text}\\nA:"\nitem = "Q: {source}\\nA: {target}\\n\\n"\n'
    assert read(tmp_path, LABELS + prompt).prompt("Hello").text == "Q: Hello\nA:"


def test_the_same_content_has_the_same_hash_wherever_it_lies_and_any_change_has_another(tmp_path: Path) -> None:
    hashes = [read(tmp_path / str(n), text).prompt_hash() for n, text in enumerate([TEXT, "# a note\n" + TEXT])]
    assert hashes[0] == hashes[1]
    changes = [("version", "version = 2\n"), ("metrics", 'metrics = ["rouge-1"]\n'), ("about", 'about = "mails"\n')]
    changed = {key: read(tmp_path / key, line + TEXT).prompt_hash() for key, line in changes}
    assert len({hashes[0], *changed.values()}) == 1 + len(changes)


def test_a_task_of_a_file_can_be_sent_to_another_process(tmp_path: Path) -> None:
    for text in (TEXT, LABELS, RATING):
        own = read(tmp_path, text)
        # What Ray does with a plan.
        assert pickle.loads(pickle.dumps(own)) == own


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("target =", "targt ="), "did you mean 'target'"),
        (('target = "reply"', ""), "target is missing"),
        (('"subject"', '"date"'), "cannot be the name of a field"),
        (('"file-mails"', '"Mails!"'), "name is 'Mails!'"),
        (("max_new_tokens = 4", "max_new_tokens = 4000"), "expected 1 to 1,024"),
        (("max_new_tokens = 4", 'kind = "labels"'), "labels are missing"),
        (("max_new_tokens = 4", 'kind = "rating"'), "scale is missing"),
        (("max_new_tokens = 4", "scale = [1, 5]"), "scale is given, but the kind is 'text'"),
        (("max_new_tokens = 4", 'metrics = ["rogue-L"]'), "did you mean 'rouge-L'"),
        (("max_new_tokens = 4", "[prompt]\nquestion = 'Q'\nitem = '{source} {target}'"), "{text} once"),
        (("max_new_tokens = 4", "[prompt]\nname = 'oppu'"), "'name'; known: bare, between, document, end, item"),
        (("max_new_tokens = 4", "max_new_tokens = ["), "not valid TOML"),
        (('"file-mails"', '"lamp5"'), "already installed"),
        (("reply.", "reply to: {text}"), "the text follows by itself"),
        (("reply.", "reply: {labels}"), "instruction holds {labels}"),
        (("max_new_tokens = 4", 'kind = "rating"\nscale = [0, 1000]'), "at most 99 apart"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    path = written(tmp_path, TEXT.replace(*change))
    with pytest.raises(InputError) as error:
        load_task(path)
    assert said in str(error.value)


def plan(folder: Path, path: str, data: Path, method: str = "majority") -> Plan:
    settings = Settings(protocol="folder", data=data, model=str(TINY_MODEL), device="cpu", out=folder / "runs")
    made = Planner(settings).plan(method, path, {})
    assert isinstance(made, Plan)
    return made


def data_of(task: Task, answers: list[str], folder: Path) -> Path:
    """Two users, each with a history of all answers and a query for each."""
    users = []
    for name in ("ann", "ben"):
        items = [HistoryItem(f"{name}{n}", f"about {n}", answer) for n, answer in enumerate(answers)]
        asked = [Query(f"{name}-{n}", name, f"query {n}") for n in range(len(answers))]
        labelled = map(LabelledQuery, asked, answers)
        users.append(LabelledUser(User(name, tuple(items)), tuple(labelled)))
    export(Exported(task, users[:1], users[1:], None), "lamp", folder)
    return folder


def forget() -> None:
    """As in a new process."""
    tasks.cache_clear()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No task of these tests is known to others."""
    yield
    forget()


def test_a_run_s_task_is_found_again_when_its_file_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path, LABELS)
    data = data_of(load_task(path), ["home", "work"], tmp_path / "data")
    made = plan(tmp_path, path, data)
    row: Any = LocalExecutor(Silence()).run(made)
    Path(path).unlink()
    forget()
    look = Look(row, made.folder, data_at(data))
    assert look.task.labels == ("home", "work")
    assert all(asked.score in (0.0, 1.0) for asked in look.asked)
    added = add(made.folder, tmp_path / "boards")
    assert added is not None
    forget()
    assert read_result(added).row == row
    assert list(validate(tmp_path / "boards", KnownGolds([]), Recount(), None)) == []
    kept = added / "task.json"
    kept.write_text(kept.read_text().replace("Which", "What"))
    forget()
    assert any(
        "not the task that the row is about" in fault for fault in validate(added, KnownGolds([]), Recount(), None)
    )


def test_two_tasks_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    own = read(tmp_path, TEXT)
    other = tmp_path / "run"
    other.mkdir()
    assert own.definition is not None
    keep_task(own, other)
    find_kept_task(other, "file-mails")
    (other / "task.json").write_text(json.dumps(own.definition.to_json() | {"version": 2}))
    with pytest.raises(InputError, match="move the runs of one of them to another folder"):
        find_kept_task(other, "file-mails")
    (tmp_path / "other").mkdir()
    first, second = written(tmp_path, TEXT), written(tmp_path / "other", TEXT.replace("reply.", "answer."))
    with pytest.raises(InputError, match="two tasks are called 'file-mails'; give one of them another name"):
        task_names(f"{first},{second}", print)
    assert task_names([first, first], print) == ["file-mails"]


def test_labels_from_the_data_are_those_of_histories_and_golds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path, LABELS.replace('["home", "work"]', '"from the data"'))
    data = data_of(load_task(path), ["a", "b", "c"], tmp_path / "data")
    made = plan(tmp_path, path, data)
    assert made.task.labels == ("a", "b", "c")
    assert made.task.instruction == "Which folder: a, b, c?"
    assert load_task("file-folders") == made.task
    row: Any = LocalExecutor(Silence()).run(made)
    assert row.status == "success"
    assert json.loads((made.folder / "task.json").read_text())["labels"] == ["a", "b", "c"]


def test_labels_from_the_data_are_those_of_the_run_whatever_ran_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path, LABELS.replace('["home", "work"]', '"from the data"'))
    folders = [data_of(load_task(path), labels, tmp_path / labels[0]) for labels in (["a", "b"], ["c", "d", "e"])]
    first = plan(tmp_path, path, folders[0])
    row: Any = LocalExecutor(Silence()).run(first)
    assert plan(tmp_path, "file-folders", folders[1]).task.labels == ("c", "d", "e")
    look = Look(row, first.folder, data_at(folders[0]))
    assert look.task.labels == ("a", "b")
    assert {asked.gold for asked in look.asked} == {"a", "b"}


def test_a_definition_written_as_json_is_read_as_it_was(tmp_path: Path) -> None:
    prompt = '[prompt]\nquestion = "{instruction} {text}\\nA:"\nitem = "{source} {target}"\n'
    own = read(tmp_path, RATING + prompt)
    assert isinstance(own.definition, TaskFile)
    again = load_task(written(tmp_path, json.dumps(own.definition.to_json()), "task.json"))
    assert again == own
