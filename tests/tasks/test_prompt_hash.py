"""The prompt hash covers everything that is put before a model or a retriever."""

from dataclasses import replace
from typing import Any

import pytest
from support import TASK_NAMES, task

from lampbench.core import HistoryItem, Prompt, Task

CHANGES: dict[str, Any] = {
    "instruction": "Say a title:",
    "source_word": "text",
    "target_word": "headline",
    "before_target": "\n",
    "one_line": False,
    "training_words": 767,
    "retrieved_words": 367,
    "profile_question": "Who is this?",
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_change_of_the_template_or_of_a_word_limit_changes_the_hash(field: str) -> None:
    own = task("lamp5")
    assert replace(own, **{field: CHANGES[field]}).prompt_hash() != own.prompt_hash()


@pytest.mark.parametrize("limit", ["training_words", "retrieved_words"])
def test_a_larger_word_limit_changes_the_hash(limit: str) -> None:
    own = task("lamp5")
    change: dict[str, Any] = {limit: 100_000}
    assert replace(own, **change).prompt_hash() != own.prompt_hash()


@pytest.mark.parametrize("constant", ["_CONTEXT_END", "_ANSWER_START"])
@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_change_of_a_separator_changes_the_hash(constant: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = task("lamp5").prompt_hash()
    monkeypatch.setattr(f"lampbench.core._types.{constant}", text)
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
