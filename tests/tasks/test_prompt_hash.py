"""The prompt hash covers everything that is put before a model or a retriever."""

from dataclasses import replace
from typing import Any

import pytest
from support import TASK_NAMES, task

from lampbench.core import HistoryItem, Prompt, Task

PLAIN: dict[str, Any] = {"instruction": "Say a title:", "source_word": "text", "target_word": "headline"}
CHANGES: dict[str, Any] = {
    "one_line": False,
    "training_words": 767,
    "retrieved_words": 367,
    "profile_question": "Who is this?",
}
WORDS: dict[str, str] = {
    "question": "Say a title: {text} title:",
    "item": "abstract: {source}; title: {target}\n",
    "query": "{text}",
    "document": "{source}",
    "between": "; ",
    "end": "\n\n",
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_change_of_what_prompts_show_changes_the_hash(field: str) -> None:
    own = task("lamp5")
    assert replace(own, **{field: CHANGES[field]}).prompt_hash() != own.prompt_hash()


@pytest.mark.parametrize("field", PLAIN)
def test_a_change_of_the_plain_wording_changes_the_hash(field: str) -> None:
    own = replace(task("lamp5"), wordings=())
    assert replace(own, **{field: PLAIN[field]}).prompt_hash() != own.prompt_hash()


@pytest.mark.parametrize("field", WORDS)
def test_a_change_of_the_wording_changes_the_hash(field: str) -> None:
    own = task("lamp5")
    changed: dict[str, Any] = {field: WORDS[field]}
    assert replace(own, wordings=(replace(own.wording, **changed),)).prompt_hash() != own.prompt_hash()


def test_another_bare_prompt_changes_the_hash_where_items_have_no_source_side() -> None:
    own = task("lamp7")
    assert replace(own, wordings=(replace(own.wording, bare="text:"),)).prompt_hash() != own.prompt_hash()


@pytest.mark.parametrize("limit", ["training_words", "retrieved_words"])
def test_a_larger_word_limit_changes_the_hash(limit: str) -> None:
    own = task("lamp5")
    change: dict[str, Any] = {limit: 100_000}
    assert replace(own, **change).prompt_hash() != own.prompt_hash()


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_another_start_of_answers_changes_the_hash(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = task("lamp5").prompt_hash()
    monkeypatch.setattr("lampbench.core._types._ANSWER_START", text)
    assert task("lamp5").prompt_hash() != before


def _other_render(self: Task, item: HistoryItem, words: int | None = None) -> str:
    return f"- {item.source}: {item.target}\n"


def _other_query(self: Task, text: str) -> str:
    return text


def _other_head(self: Task, text: str, id: str = "") -> Prompt:
    return Prompt(f"{self.instruction} {self.source_word}: ", text, f" {self.target_word}:", id=id)


@pytest.mark.parametrize(
    ("name", "other"), [("render", _other_render), ("retrieval_query", _other_query), ("prompt", _other_head)]
)
def test_another_rendering_changes_the_hash(name: str, other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = task("lamp5").prompt_hash()
    monkeypatch.setattr(Task, name, other)
    assert task("lamp5").prompt_hash() != before


def test_what_no_prompt_shows_does_not_change_the_hash() -> None:
    other = replace(task("lamp5"), about="another", version=7, scored_by=("rouge-1",), max_new_tokens=9)
    assert other.prompt_hash() == task("lamp5").prompt_hash()


def test_every_task_has_a_hash_of_its_own() -> None:
    assert len({task(name).prompt_hash() for name in TASK_NAMES}) == len(TASK_NAMES)
