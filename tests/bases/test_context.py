"""``context`` of both bases: one string is one piece."""

from collections.abc import Sequence
from typing import Any

import pytest
from support import task

from lampbench import AdapterMethod, HistoryItem, LabelledUser, Method, Prompt, PromptMethod, Query, User
from lampbench.adapters import LoraSpec, Recipe
from lampbench.core import Context, LabelledQuery

USER = User("u", (HistoryItem("1", "first", "one"), HistoryItem("2", "second", "two")))
QUERY = Query("q", "u", "third")


class Recorder:
    """A backbone that keeps the prompts it was asked."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []

    def answer(self, task: Any, prompts: Sequence[Prompt], adapters: Any = (), contrast: Any = None) -> list[str]:
        self.prompts += prompts
        return ["" for _ in prompts]


class Prompts(PromptMethod):
    given: Any

    def context(self, user: User, query: Query) -> Any:
        return self.given


class Adapters(AdapterMethod):
    given: Any

    def adapter(self) -> LoraSpec:
        return LoraSpec(1, 1.0, 0.0, ("q_proj",))

    def recipe(self) -> Recipe:
        raise NotImplementedError

    def adapt(self, users: Sequence[User]) -> None:
        # What training leaves behind, without training.
        self._users.update({user.id: user for user in users})

    def context(self, user: User, query: Query) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("given", "pieces"),
    [("likes tea\n", ("likes tea\n",)), (["a\n", "", "b\n"], ("a\n", "b\n")), (("a",), ("a",)), ("", ()), ([], ())],
)
@pytest.mark.parametrize("kind", [Prompts, Adapters])
def test_a_context_is_one_string_or_pieces_in_either_base(
    kind: type[Method], given: str | Sequence[str], pieces: tuple[str, ...]
) -> None:
    backbone = Recorder()
    method: Any = kind(task=task("lamp5"), config=None, seed=0, backbone=backbone)
    method.given = given
    method.adapt([USER])
    method.predict([QUERY])
    assert [prompt.context for prompt in backbone.prompts] == [pieces]


@pytest.mark.parametrize("given", ["likes tea\n", ["likes tea\n"]])
def test_training_examples_have_the_same_context(given: str | list[str]) -> None:
    method: Any = Adapters(task=task("lamp5"), config=None, seed=0, backbone=Recorder())
    method.given = given
    assert [pair.prompt.context for pair in method.examples(USER)] == [("likes tea\n",)] * 2
    shared = LabelledUser(USER, (LabelledQuery(QUERY, "three"),))
    assert method._shared_example(shared, 0).prompt.context == ("likes tea\n",)


def test_a_context_object_has_its_own_end() -> None:
    prompt = Prompt("head ", "text", " tail")
    assert prompt.with_context(Context(("a", "b"), ". ")).text == "ab. head text tail"
    assert prompt.with_context(Context((), ". ")).text == "head text tail"


def test_items_without_a_source_side_are_trained_on_without_a_context() -> None:
    tweets = User("u", (HistoryItem("1", "", "one"), HistoryItem("2", "", "two")))
    recorder = Recorder()
    method = Adapters(task=task("lamp7"), config=None, seed=0, backbone=recorder)
    method.given = "likes tea\n"
    assert [pair.prompt.text for pair in method.examples(tweets)] == ["tweet:", "tweet:"]
    method.adapt([tweets])
    method.predict([Query("q", "u", "third")])
    assert recorder.prompts[0].context == ("likes tea\n",)
    titles = Adapters(task=task("lamp5"), config=None, seed=0, backbone=Recorder())
    titles.given = "likes tea\n"
    assert all(pair.prompt.context for pair in titles.examples(USER))
