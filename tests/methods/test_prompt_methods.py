import json
from pathlib import Path
from typing import Any

import pytest
from support import TINY_MODEL, task

from lampbench.core import (
    HistoryItem,
    InputError,
    LabelledUser,
    Prompt,
    Query,
    RunContext,
    Task,
    User,
    config_from,
    methods,
)


class Recorder:
    """A backbone that keeps the prompts it was asked."""

    device = "cpu"

    def __init__(self, reply: str = "a reply\nof two lines") -> None:
        self.prompts: list[Prompt] = []
        self.written: list[Prompt] = []
        self.longest: list[int] = []
        self.reply = reply

    def answer(self, the_task: Task, prompts: list[Prompt]) -> list[str]:
        self.prompts += prompts
        return [f"answer to {prompt.id}" for prompt in prompts]

    def write(self, prompts: list[Prompt], max_new_tokens: int, sampling: Any) -> list[str]:
        self.written += prompts
        self.longest.append(max_new_tokens)
        return [self.reply] * len(prompts)


ITEMS = tuple(
    HistoryItem(f"i{n}", f"source {w}", f"target {w}", f"20{n:02d}") for n, w in enumerate(["tea", "ore", "ice"])
)
USER = User("u", ITEMS)
QUERY = Query("q", "u", "source ore")


def build(name: str, backbone: Any, task_name: str = "lamp5", **settings: Any) -> Any:
    kind = methods().load(name)
    config = kind.resolve(config_from(kind.Config, settings, name), task(task_name), RunContext("folder"))
    return kind(task=task(task_name), config=config, seed=0, backbone=backbone)


def prompt_of(name: str, **settings: Any) -> str:
    backbone = Recorder()
    method = build(name, backbone, **settings)
    method.adapt([USER])
    assert method.predict([QUERY]) == ["answer to q"]
    return backbone.prompts[0].text


PLAIN = "Generate a title for the following abstract of a paper.\n abstract: source ore title:"


def test_zero_shot_asks_the_prompt_alone() -> None:
    assert prompt_of("zero-shot") == PLAIN


def test_rag_puts_the_best_item_a_newline_and_the_prompt() -> None:
    assert prompt_of("rag") == f"abstract: source ore title: target ore\n\n{PLAIN}"


def test_rag_with_all_items_puts_the_best_first() -> None:
    lines = prompt_of("rag", k="all", retriever="recency").splitlines()
    assert lines[:3] == [f"abstract: source {w} title: target {w}" for w in ("ice", "ore", "tea")]


def test_dense_rag_names_the_encoders_revision() -> None:
    method = build("rag", Recorder(), retriever="dense", encoder=str(TINY_MODEL), k="2")
    assert method.config.encoder_revision.startswith("sha256:")
    method.adapt([USER])
    assert len(method.context(USER, QUERY).pieces) == 2


@pytest.mark.parametrize("settings", [{"k": "0"}, {"retriever": "dense"}, {"retriever": "best"}])
def test_rag_refuses_settings_that_cannot_work(settings: dict[str, str]) -> None:
    with pytest.raises(InputError, match="rag"):
        build("rag", Recorder(), **settings)


def test_pag_asks_for_a_profile_and_puts_it_first() -> None:
    backbone = Recorder()
    method = build("pag", backbone, k="1")
    method.adapt([USER])
    method.predict([QUERY])
    asked = backbone.written[0].text
    assert "template that this author's titles follow" in asked
    assert all(f"abstract: source {w} title: target {w}\n" in asked for w in ("tea", "ore", "ice"))
    assert backbone.prompts[0].text == f"a reply of two lines\nabstract: source ore title: target ore\n\n{PLAIN}"


@pytest.mark.parametrize(("settings", "tokens"), [({}, 200), ({"max_new_tokens": "7"}, 7)])
def test_pag_limits_the_profile_and_the_items_it_is_written_from(settings: dict[str, str], tokens: int) -> None:
    words = [f"w{n}" for n in range(500)]
    backbone = Recorder()
    build("pag", backbone, **settings).adapt([User("u", (HistoryItem("i", " ".join(words), "target"),))])
    assert backbone.longest == [tokens]
    assert backbone.written[0].context == (f"abstract: {' '.join(words[:200])} title: target\n",)


def test_pag_samples_items_by_user() -> None:
    many = tuple(HistoryItem(f"i{n}", f"source {n}", "t") for n in range(40))
    backbone = Recorder()
    method = build("pag", backbone)
    method.adapt([User("u", many), User("v", many)])
    method.adapt([User("u", many)])
    u, v, again = (prompt.context for prompt in backbone.written)
    assert len(u) == 10
    assert u == again != v


def test_pag_reads_profiles_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    path.write_text(json.dumps([{"id": "u", "output": "likes tea"}]))
    assert prompt_of("pag", profiles=str(path)) == f"likes tea\n{PLAIN}"
    method = build("pag", Recorder(), profiles=str(path))
    before = method.config.profiles_sha256
    path.write_text(json.dumps([{"id": "u", "output": "likes ore"}]))
    assert build("pag", Recorder(), profiles=str(path)).config.profiles_sha256 != before
    with pytest.raises(InputError, match="no profile for 1 users, one is 'v'"):
        method.adapt([User("v", ITEMS)])


@pytest.mark.parametrize("content", ["{", '{"u": "x"}', '[{"id": "u"}]'])
def test_pag_refuses_a_file_that_holds_no_profiles(tmp_path: Path, content: str) -> None:
    path = tmp_path / "profiles.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"profiles\.json: expected a JSON list"):
        build("pag", Recorder(), profiles=str(path))


def majority(task_name: str, targets: list[str], **settings: Any) -> str:
    method = build("majority", None, task_name, **settings)
    method.adapt([User("u", tuple(HistoryItem(str(i), "s", t) for i, t in enumerate(targets)))])
    answer: str = method.predict([QUERY])[0]
    return answer


def test_majority_is_the_most_frequent_label_and_of_equals_the_last() -> None:
    assert majority("lamp2m", ["action", "comedy", "comedy", "action", "action"]) == "action"
    assert majority("lamp2m", ["comedy", "action", "action", "comedy"]) == "comedy"


def test_majority_of_ratings_is_the_mean_rounded_half_up_or_not() -> None:
    assert majority("lamp3", ["2", "3"]) == "3"
    assert majority("lamp3", ["3", "4"]) == "4"
    assert majority("lamp3", ["4", "5", "5"], rounded="false") == "4.6667"


def test_majority_of_texts_is_the_nearest_items_target() -> None:
    method = build("majority", None)
    method.adapt([USER])
    assert method.predict([QUERY]) == ["target ore"]


def test_majority_of_a_stranger_is_what_shared_users_answer() -> None:
    method = build("majority", None, "lamp2m")
    shared = User(
        "s", (HistoryItem("1", "s", "romance"), HistoryItem("2", "s", "romance"), HistoryItem("3", "s", "action"))
    )
    method.fit_shared([LabelledUser(shared, ())])
    assert method.predict([QUERY]) == ["romance"]
