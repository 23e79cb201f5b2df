"""Training examples for the bundled model, written by users that are in no split of the mini suite."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from lampbench_methods.pag import profile_prompt

from lampbench.core import HistoryItem, Pair, Query, Task, User, derive_seed, tasks
from lampbench.data.mini import GENERATORS, MiniUser
from lampbench.retrieval import RetrieverFactory

_HISTORY = 24
# As many as PAG's mini preset shows.
_PROFILE_ITEMS = 5
_CONTEXT_SIZES = (0, 0, 1, 1, 2, 3, 4, 6)
_WITH_PROFILE = 0.25
_BY_RELEVANCE = 0.75
_ASKS_FOR_PROFILE = 0.08
_BARE_ITEM = 0.15


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


def _example(user: MiniUser, task: Task) -> Example:
    draw = user.draw("example")
    *written, asked = itertools.islice(user.records(), _HISTORY + 1)
    history = [
        HistoryItem(str(number), record.source if task.item_source else "", record.target)
        for number, record in enumerate(written)
    ]
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
    retrieve = RetrieverFactory("bm25", task, derive_seed(0))
    return retrieve(User("", tuple(history))).rank(Query("", "", text), size)
