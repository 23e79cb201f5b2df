"""Training examples for the bundled model, written by users that are in no split of the mini suite."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from lampbench_methods.pag import profile_prompt

from lampbench.core import Context, HistoryItem, Pair, Prompt, Query, Task, User, derive_seed, tasks
from lampbench.data.mini import GENERATORS, MiniUser, Record
from lampbench.retrieval import RetrieverFactory

_HISTORY = 24
# As many as PAG's mini preset shows.
_PROFILE_ITEMS = 5
_CONTEXT_SIZES = (0, 0, 1, 1, 2, 3, 4, 6)
_WITH_PROFILE = 0.25
_BY_RELEVANCE = 0.75
_ASKS_FOR_PROFILE = 0.08
_BARE_ITEM = 0.15
# Of the second course: no user of it is in the first, and labels take most turns.
_SECOND_COURSE = 1_000_000
_TURNS = (
    "lamp2m",
    "lamp2n",
    "lamp3",
    "lamp2m",
    "lamp2n",
    "lamp3",
    "lamp4",
    "lamp2m",
    "lamp2n",
    "lamp5",
    "lamp3",
    "lamp7",
)
_LIST = 0.5
_LIST_ITEMS = 8


@dataclass(frozen=True)
class Example:
    """A prompt and its target; and what the items in its context have as targets, from the first item to the last."""

    pair: Pair
    shown: tuple[str, ...] = ()


def examples(seed: int) -> Iterator[Example]:
    """Endless examples, all tasks in turn, each by a user who writes no second one.

    Prompts are those of the methods: the plain prompt, after up to six items of the same user and
    sometimes a profile; the question for a profile; and, if a history has no source side, the
    bare target field that adapters train on.
    """
    for index in itertools.count():
        for name in sorted(GENERATORS):
            yield _example(MiniUser(GENERATORS[name], "model", index, seed), tasks().load(name))


def label_examples(seed: int) -> Iterator[Example]:
    """Endless examples of a second course, in which labels take most turns.

    Half of those with labels are lists of items alone, without instruction and label list, in which similar items have
    mostly the same label: from them a model learns to look at what a user did before.
    """
    for index in itertools.count(_SECOND_COURSE):
        for turn, name in enumerate(_TURNS):
            task = tasks().load(name)
            user = MiniUser(GENERATORS[name], "model", len(_TURNS) * index + turn, seed)
            as_list = task.labels and user.draw("list").random() < _LIST
            yield _list_of_items(user, task) if as_list else _example(user, task)


def _list_of_items(user: MiniUser, task: Task) -> Example:
    history, asked = _written(user, task)
    items = _similar(history, asked.source, task, _LIST_ITEMS)
    user.draw("order").shuffle(items)
    head, _, tail = task.wording.item.partition("{source}")
    prompt = Prompt(head, asked.source, tail.partition(" {target}")[0]).with_context(
        Context(_rendered(task, items), "")
    )
    return Example(Pair(prompt, asked.target), tuple(item.target for item in items))


def _rendered(task: Task, items: list[HistoryItem]) -> tuple[str, ...]:
    return tuple(task.render(item) for item in items)


def _written(user: MiniUser, task: Task) -> tuple[list[HistoryItem], Record]:
    """A user's history, and what is asked next."""
    *written, asked = itertools.islice(user.records(), _HISTORY + 1)
    history = [
        HistoryItem(str(number), record.source if task.item_source else "", record.target)
        for number, record in enumerate(written)
    ]
    return history, asked


def _example(user: MiniUser, task: Task) -> Example:
    draw = user.draw("example")
    history, asked = _written(user, task)
    chance = draw.random()
    if chance < _ASKS_FOR_PROFILE:
        return Example(Pair(profile_prompt(task, history[:_PROFILE_ITEMS], ""), user.generator.profile(user.style)))
    if task.item_source is None and chance < _ASKS_FOR_PROFILE + _BARE_ITEM:
        return Example(task.pair(history[0]))
    items = _context(history, asked.source, task, draw)
    profile = user.generator.profile(user.style) if draw.random() < _WITH_PROFILE else ""
    prompt = task.prompt(asked.source).with_context(task.context(items, profile))
    return Example(Pair(prompt, asked.target), tuple(item.target for item in items))


def _context(history: list[HistoryItem], text: str, task: Task, draw: random.Random) -> list[HistoryItem]:
    size = _CONTEXT_SIZES[draw.randrange(len(_CONTEXT_SIZES))]
    if draw.random() >= _BY_RELEVANCE:
        return draw.sample(history, size)
    return _similar(history, text, task, size)


def _similar(history: list[HistoryItem], text: str, task: Task, size: int) -> list[HistoryItem]:
    retrieve = RetrieverFactory("bm25", task, derive_seed(0))
    return retrieve(User("", tuple(history))).rank(Query("", "", text), size)
