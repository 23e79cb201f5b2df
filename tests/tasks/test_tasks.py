import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import TASK_NAMES, data_folders, dataset, task

from lampbench.core import HistoryItem, InputError

ITEM = HistoryItem("i1", "some text", "an answer")


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("lamp4", "Generate a headline for the following article.\narticle: T headline:"),
        ("lamp5", "Generate a title for the following abstract of a paper.\n abstract: T title:"),
        (
            "lamp3",
            "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, or 5 "
            "without further explanation. review: T\n score:",
        ),
        (
            "lamp7",
            "Paraphrase the following text into tweet without any explanation before or after it.\n text: T tweet:",
        ),
    ],
)
def test_prompts_are_those_of_oppus_release(name: str, prompt: str) -> None:
    assert task(name).prompt("T").text == prompt


def test_label_prompts_list_the_labels_in_the_one_fixed_order() -> None:
    assert "tags: [sci-fi, based on a book, comedy, action," in task("lamp2m").prompt("T").text
    assert task("lamp2m").prompt("T").text.endswith("true story]\n description: T tag:")
    assert task("lamp2n").prompt("T").text.endswith("culture & arts, religion]\n article: T category:")


def test_a_history_item_is_a_training_example_of_the_same_template() -> None:
    pair = task("lamp5").pair(ITEM)
    assert pair.prompt.text == task("lamp5").prompt("some text").text
    assert pair.target == "an answer"


def test_a_tweet_has_no_source_side() -> None:
    pair = task("lamp7").pair(HistoryItem("i1", "", "my tweet"))
    assert (pair.prompt.text, pair.target) == ("tweet:", "my tweet")
    assert task("lamp7").render(HistoryItem("i1", "", "my tweet")) == "tweet: my tweet\n"


@pytest.mark.parametrize("name", TASK_NAMES)
@pytest.mark.parametrize(
    ("target", "trained"),
    [
        ("one\ntwo", "one two"),
        ("one \r\n\n\t two\n", "one two"),
        ("\n one", "one"),
        ("one  two\tthree ", "one  two\tthree "),
    ],
)
def test_training_targets_are_one_line_as_answers_are(name: str, target: str, trained: str) -> None:
    own = task(name)
    assert own.pair(HistoryItem("i1", "text", target)).target == trained
    assert own.example("text", target).target == trained
    assert replace(own, one_line=False).example("text", target).target == target


@pytest.mark.parametrize("folder", data_folders())
def test_no_training_target_of_the_data_has_a_newline(folder: Path) -> None:
    data = dataset("lamp7", folder)
    targets = [task("lamp7").pair(item).target for user in data.users for item in user.history]
    assert targets
    assert not any("\n" in target for target in targets)


def test_a_retrieved_item_is_one_line_of_source_and_target() -> None:
    assert task("lamp5").render(ITEM) == "abstract: some text title: an answer\n"


def test_source_texts_are_cut_to_768_words_for_training_and_368_when_retrieved() -> None:
    item = HistoryItem("i1", " ".join(f"w{i}" for i in range(1000)), "answer")
    assert task("lamp5").pair(item).prompt.source.split() == [f"w{i}" for i in range(768)]
    assert task("lamp5").render(item).split() == ["abstract:", *(f"w{i}" for i in range(368)), "title:", "answer"]


def test_queries_of_shared_users_are_cut_like_history_items() -> None:
    text = " ".join(f"w{i}" for i in range(1000))
    assert task("lamp5").example(text, "t") == task("lamp5").pair(HistoryItem("", text, "t"))


@given(st.text())
def test_a_short_source_text_is_kept_unchanged(text: str) -> None:
    assert task("lamp5").pair(HistoryItem("i", text, "t")).prompt.source == text


@pytest.mark.parametrize("name", TASK_NAMES)
@pytest.mark.parametrize("folder", data_folders())
def test_every_input_of_the_files_is_parsed_and_put_back(name: str, folder: Path) -> None:
    the_task = task(name)
    for split in ("train", "dev"):
        path = folder / the_task.official[0] / split / f"{split}_questions.json"
        for record in json.loads(path.read_text(encoding="utf-8")):
            text = the_task.source_text(record["input"], record["id"])
            assert text
            assert the_task.raw_input(text) == record["input"]


@pytest.mark.parametrize("name", TASK_NAMES)
@pytest.mark.parametrize("folder", data_folders())
def test_every_profile_item_keeps_its_fields(name: str, folder: Path) -> None:
    the_task = task(name)
    path = folder / the_task.official[0] / "dev" / "dev_questions.json"
    records = {
        (record["user_id"], item["id"]): item
        for record in json.loads(path.read_text(encoding="utf-8"))
        for item in record["profile"]
    }
    users = dataset(name, folder).users
    assert sum(len(user.history) for user in users) == len(records)
    for user in users:
        for item in user.history:
            record = records[user.id, item.id]
            assert item.target == record[the_task.item_target]
            assert item.source == (record[the_task.item_source] if the_task.item_source else "")


def test_an_input_without_the_marker_is_refused_with_its_id() -> None:
    with pytest.raises(InputError, match="question 7: the input of a lamp5 question must contain"):
        task("lamp5").source_text("Paraphrase this", "question 7")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("lamp2m", ["sci-fi", "true story"], ["Sci-fi", "", "drama"]),
        ("lamp2n", ["food & drink"], ["food"]),
        ("lamp3", ["1", "5", "4.5"], ["0", "45", "nan", "five", ""]),
        ("lamp5", ["A title"], [""]),
    ],
)
def test_valid_answers(name: str, good: list[str], bad: list[str]) -> None:
    assert all(task(name).accepts(output) for output in good)
    assert not any(task(name).accepts(output) for output in bad)
