import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import TASK_NAMES, TINY_DATA, data_folders, dataset, task

from lampbench.core import InputError
from lampbench.data.protocols import FolderProtocol


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny data that a test may break."""
    return Path(shutil.copytree(TINY_DATA, tmp_path / "data"))


def edit(folder: Path, file: str, change: Callable[[Any], Any]) -> Path:
    """Change a JSON file of LaMP-5; ``change`` edits in place or returns the new value."""
    path = folder / "LaMP_5" / file.split("_")[0] / f"{file}.json"
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))
    return path


def load(folder: Path) -> Any:
    return FolderProtocol().load(task("lamp5"), folder)


@pytest.mark.parametrize("name", TASK_NAMES)
@pytest.mark.parametrize("where", data_folders())
def test_users_queries_and_golds_belong_together(name: str, where: Path) -> None:
    data = dataset(name, where)
    users = {user.id for user in data.users}
    assert {query.user_id for query in data.queries} == users
    assert set(data.golds) == {query.id for query in data.queries}
    assert users.isdisjoint(entry.user.id for entry in data.shared)
    assert all(entry.queries for entry in data.shared)
    assert all(user.history for user in data.users)


def test_a_query_carries_no_gold() -> None:
    data = dataset("lamp5")
    for query in data.queries:
        assert data.golds[query.id] not in (query.id, query.user_id, query.text)
        assert set(query.__slots__) == {"id", "user_id", "text", "date"}


def test_histories_are_sorted_by_date_and_stable(folder: Path) -> None:
    dates = ["2020", "2019-05-01", 2019, "2020-01-01", None, "2019"]

    def redate(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        first = questions[0]
        first["profile"] = [
            {"id": f"p{i}", "title": "t", "abstract": "a", **({} if date is None else {"date": date})}
            for i, date in enumerate(dates)
        ]
        return [first]

    edit(folder, "dev_questions", redate)
    edit(folder, "dev_outputs", lambda outputs: outputs["golds"].__delitem__(slice(1, None)))
    assert [item.id for item in load(folder).users[0].history] == ["p4", "p2", "p5", "p1", "p0", "p3"]


def test_without_user_ids_every_question_is_a_user(folder: Path) -> None:
    edit(folder, "dev_questions", lambda questions: [q.pop("user_id") for q in questions] and None)
    data = load(folder)
    assert [user.id for user in data.users] == [query.id for query in data.queries]


def test_different_profiles_of_one_user_give_what_they_share(folder: Path) -> None:
    def shorten(questions: list[dict[str, Any]]) -> None:
        questions[1]["profile"] = questions[1]["profile"][1:]

    whole = load(folder).users[0]
    edit(folder, "dev_questions", shorten)
    data = load(folder)
    assert len(data.users[0].history) == len(whole.history) - 1
    assert data.notes == ("dev: 1 history items are in only some of their user's profiles and are left out",)


def test_what_a_later_question_sees_more_is_left_out_and_counted(folder: Path) -> None:
    def shorten(questions: list[dict[str, Any]]) -> None:
        questions[0]["profile"] = questions[0]["profile"][2:]

    edit(folder, "dev_questions", shorten)
    assert load(folder).notes[0].startswith("dev: 2 history items are in only some")


def test_a_rating_in_a_history_must_be_one(folder: Path) -> None:
    path = folder / "LaMP_3" / "dev" / "dev_questions.json"
    questions = json.loads(path.read_text())
    questions[0]["profile"][1]["score"] = "n/a"
    path.write_text(json.dumps(questions))
    with pytest.raises(InputError, match=r"profile\[1\]: 'score' is 'n/a'; expected a number from 1 to 5"):
        FolderProtocol().load(task("lamp3"), folder)


def test_data_with_a_synthetic_label_keeps_it(folder: Path) -> None:
    assert load(folder).label is None
    edit(folder, "dev_outputs", lambda outputs: outputs.update(about="mini (synthetic)"))
    assert load(folder).label == "mini (synthetic)"


def test_a_folder_without_train_has_no_shared_users(folder: Path) -> None:
    shutil.rmtree(folder / "LaMP_5" / "train")
    assert load(folder).shared == ()


def test_the_hash_names_users_histories_queries_and_golds(folder: Path) -> None:
    before = load(folder).hash
    assert load(folder).hash == before
    edit(folder, "dev_outputs", lambda outputs: outputs["golds"][0].update(output="another"))
    after_gold = load(folder).hash
    edit(folder, "dev_questions", lambda questions: questions[0]["profile"][0].update(title="new"))
    assert len({before, after_gold, load(folder).hash}) == 3


def test_the_first_users_keep_their_queries_only() -> None:
    data = dataset("lamp5").first_users(2)
    assert [user.id for user in data.users] == ["dev0", "dev1"]
    assert {query.user_id for query in data.queries} == {"dev0", "dev1"}
    assert set(data.golds) == {query.id for query in data.queries}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("dev_questions", lambda q: q[1].update(id=q[0]["id"]), r"question 1 \(id 'dev0-q0'\): the id occurs twice"),
        (
            "dev_questions",
            lambda q: q[0].pop("profile") and None,
            r"question 0 \(id 'dev0-q0'\): the profile is missing",
        ),
        ("dev_questions", lambda q: q[0]["profile"][2].pop("title") and None, r"profile\[2\]: 'title' is missing"),
        ("dev_questions", lambda q: q[0]["profile"][2].update(title=3), r"'title' is a int \('3'\); expected a string"),
        ("dev_questions", lambda q: q[0]["profile"][2].update(date="May"), r"the date is 'May'; expected YYYY"),
        (
            "dev_questions",
            lambda q: q[0]["profile"][1].update(id=q[0]["profile"][0]["id"]),
            r"profile\[1\]: the item id '.*' occurs twice",
        ),
        ("dev_questions", lambda q: q[0].pop("user_id") and None, "5 of 6 questions have a user_id"),
        ("dev_questions", lambda q: q[0].update(input="no marker"), "must contain 'Generate a title"),
        ("dev_questions", lambda q: [], "expected a non-empty JSON list of questions, found an empty list"),
        ("dev_questions", lambda q: {"a": 1}, "question 0: 'id' is missing"),
        ("dev_questions", lambda q: "text", "expected a JSON list of records, or JSON Lines, found '\"' at byte 0"),
        ("dev_questions", lambda q: ["x"], "question 0: expected an object with id, input and profile"),
        ("dev_questions", lambda q: q[:4], "2 of the 6 ids of .*dev_outputs.json are missing, the first is 'dev2-q0'"),
        ("dev_outputs", lambda o: o["golds"].pop() and None, "1 of the 6 ids of .*dev_questions.json are missing"),
        ("dev_outputs", lambda o: o["golds"][1].update(id="dev0-q0"), r"golds\[1\]: the id 'dev0-q0' occurs twice"),
        ("dev_outputs", lambda o: o["golds"][1].pop("output") and None, r"'output' is missing"),
        ("dev_outputs", lambda o: o["golds"][1].update(output=" "), "no answer of lamp5"),
        ("dev_outputs", lambda o: o.update(task="LaMP_4"), "this file says task 'LaMP_4', expected 'LaMP_5'"),
        ("dev_outputs", lambda o: {"answers": o["golds"]}, 'expected {"task"'),
        ("dev_outputs", lambda o: o.update(golds=[]), "there are no golds in it"),
    ],
)
def test_a_wrong_record_is_named(folder: Path, file: str, change: Callable[[Any], Any], message: str) -> None:
    path = edit(folder, file, change)
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert path.parent.parent.name in str(caught.value)


def test_a_cut_file_says_where_it_ends(folder: Path) -> None:
    cut(folder / "LaMP_5" / "dev" / "dev_questions.json")
    with pytest.raises(InputError, match=r"dev_questions\.json: not valid JSON in record 5, at byte \d+ .*cut short"):
        load(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "LaMP_5" / "dev" / "dev_outputs.json").unlink()
    with pytest.raises(InputError, match=r"dev_outputs\.json: no such file"):
        load(folder)


def test_a_file_that_is_not_text_is_named(folder: Path) -> None:
    (folder / "LaMP_5" / "dev" / "dev_outputs.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="not UTF-8 at byte 0"):
        load(folder)


def test_a_missing_task_folder_says_what_there_is(folder: Path) -> None:
    shutil.rmtree(folder / "LaMP_5")
    with pytest.raises(InputError, match=r"no folder LaMP_5 for lamp5; found LaMP_2M, LaMP_2N, LaMP_3, LaMP_4, LaMP_7"):
        load(folder)


@pytest.mark.parametrize("where", [None, Path("/no/such/folder")])
def test_no_folder_says_what_to_do(where: Path | None) -> None:
    with pytest.raises(InputError, match="--data"):
        FolderProtocol().load(task("lamp5"), where)
