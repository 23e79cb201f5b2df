"""The two wordings of LaMP's tasks, held against the templates as released (facts, written out here by hand)."""

import json
from pathlib import Path

import pytest
from support import TASK_NAMES, data_folders, task

from lampbench.core import HistoryItem, InputError

ITEMS = [HistoryItem("i1", "first text", "first answer"), HistoryItem("i2", "second text", "second answer")]

OPPU_QUERIES = {
    "lamp2m": "Which tag does this movie relate to among the following tags? Just answer with the tag name without "
    "further explanation.\n description: T",
    "lamp2n": "Which category does this article relate to among the following categories? arcicle: T",
    "lamp3": "What is the score of the following review on a scale of 1 to 5? review: T",
    "lamp4": "Generate a headline for the following article: T",
    "lamp5": "Generate a title for the following abstract of a paper: T",
    "lamp7": "Paraphrase the following text into tweet without any explanation before or after it: T",
}
OPPU_ITEMS = {
    "lamp2m": "description: first text tag: first answer\n",
    "lamp2n": "article: first text category: first answer\n",
    "lamp3": "review: first text score: first answer\n",
    "lamp4": "article: first text headline: first answer\n",
    "lamp5": "abstract: first text title: first answer\n",
    "lamp7": "tweet: first answer\n",
}
LAMP_CONTEXTS = {
    "lamp2m": 'the tag for the movie: "first text" is "first answer" , and '
    'the tag for the movie: "second text" is "second answer" . ',
    "lamp2n": 'the category for the article: "first text" is "first answer" , and '
    'the category for the article: "second text" is "second answer" . ',
    "lamp3": 'first answer is the score for "first text" , and second answer is the score for "second text" . ',
    "lamp4": '"first answer" is the title for "first text" , and "second answer" is the title for "second text" . ',
    "lamp5": '"first answer" is a title for "first text" , and "second answer" is a title for "second text" . '
    "Following the given patterns ",
    "lamp7": '"first answer" , and "second answer"  are written by a person. Following the given patterns ',
}


@pytest.mark.parametrize("name", TASK_NAMES)
def test_oppus_retrieval_queries_hold_no_label_list(name: str) -> None:
    assert task(name).retrieval_query("T") == OPPU_QUERIES[name]


@pytest.mark.parametrize("name", TASK_NAMES)
def test_oppus_context_is_the_profile_a_newline_the_items_and_a_newline(name: str) -> None:
    own = task(name)
    prompt, item = own.prompt("T"), OPPU_ITEMS[name]
    assert own.document(ITEMS[0]) == item
    assert prompt.with_context(own.context(ITEMS[:1])).text == f"{item}\n{prompt.text}"
    assert prompt.with_context(own.context(ITEMS[:1], "Likes it.")).text == f"Likes it.\n{item}\n{prompt.text}"
    assert prompt.with_context(own.context([], "Likes it.")).text == f"Likes it.\n{prompt.text}"
    assert prompt.with_context(own.context([])).text == prompt.text


@pytest.mark.parametrize("name", TASK_NAMES)
def test_lamps_context_joins_items_and_asks_the_raw_question(name: str) -> None:
    own = task(name).worded("lamp")
    prompt = own.prompt("T")
    assert prompt.text == own.raw_input("T")
    assert own.retrieval_query("T") == "T"
    assert prompt.with_context(own.context(ITEMS)).text == LAMP_CONTEXTS[name] + own.raw_input("T")


@pytest.mark.parametrize("name", TASK_NAMES)
@pytest.mark.parametrize("folder", data_folders())
def test_lamps_prompts_are_the_inputs_of_the_files(name: str, folder: Path) -> None:
    own = task(name).worded("lamp")
    path = folder / own.official[0] / "dev" / "dev_questions.json"
    for record in json.loads(path.read_text(encoding="utf-8")):
        assert own.prompt(own.source_text(record["input"], record["id"])).text == record["input"]


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_text_with_braces_is_kept_unchanged(name: str) -> None:
    own = task(name)
    text = "a {text} of {source} and {target} {0}"
    item = HistoryItem("i1", text if own.item_source else "", text)
    assert text in own.prompt(text).text
    assert own.render(item).count(text) == (2 if own.item_source else 1)
    assert text in own.retrieval_query(text)


def test_a_wording_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(InputError, match=r"oppo.*oppu"):
        task("lamp5").worded("oppo")


@pytest.mark.parametrize("name", TASK_NAMES)
def test_wordings_have_different_hashes_and_the_default_is_oppus(name: str) -> None:
    own = task(name)
    assert own.worded("oppu") == own
    assert own.worded("lamp").prompt_hash() != own.prompt_hash()
    assert own.worded("lamp").worded("oppu") == own
