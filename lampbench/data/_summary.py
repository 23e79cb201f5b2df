"""What a protocol's data looks like in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from lampbench.core import Pair, Task
from lampbench.data._dataset import Dataset


@dataclass(frozen=True, slots=True)
class Spread:
    """How a count spreads: the middle, the largest, the sum."""

    median: float
    largest: int
    total: int

    @classmethod
    def of(cls, counts: Iterable[int]) -> Spread | None:
        """The spread of some counts, or None if there are none."""
        values = list(counts)
        return cls(float(median(values)), max(values), sum(values)) if values else None


@dataclass(frozen=True)
class Summary:
    """One task's data in numbers.

    Attributes:
        users, shared_users: How many are evaluated, and how many are shared.
        queries, shared_queries: Queries per user.
        history, shared_history: Items per history.
        labels: Gold -> how many queries have it; empty for tasks whose golds are texts.
        gold_words: Words per gold; None for tasks with labels.
    """

    users: int
    shared_users: int
    queries: Spread | None
    shared_queries: Spread | None
    history: Spread | None
    shared_history: Spread | None
    labels: Mapping[str, int]
    gold_words: Spread | None


@dataclass(frozen=True)
class TokenSummary:
    """Tokens under one tokenizer, nothing cut, without BOS and EOS.

    Attributes:
        prompts: Tokens of each query's plain prompt.
        histories: Tokens of each user's history as training examples.
        shared: Tokens per shared query as a training example.
    """

    prompts: Spread | None
    histories: Spread | None
    shared: Spread | None


def summarize(task: Task, data: Dataset) -> Summary:
    """Count users, queries, items and answers; no history's text is read."""
    golds = [gold.strip() for gold in data.golds.values()]
    return Summary(
        users=len(data.evaluated),
        shared_users=len(data.shared),
        queries=Spread.of(len(asked.queries) for asked in data.evaluated),
        shared_queries=Spread.of(len(entry.queries) for entry in data.shared),
        history=Spread.of(len(asked.user.history) for asked in data.evaluated),
        shared_history=Spread.of(len(entry.user.history) for entry in data.shared),
        labels=dict(Counter(golds).most_common()) if task.kind != "text" else {},
        gold_words=Spread.of(len(gold.split()) for gold in golds) if task.kind == "text" else None,
    )


def count_tokens(task: Task, data: Dataset, count: Callable[[list[str]], list[int]]) -> TokenSummary:
    """Count tokens of prompts and training examples; ``count`` gives those of each text."""

    def example(pair: Pair) -> str:
        return f"{pair.prompt.text} {pair.target}"

    histories = [sum(count([example(task.pair(item)) for item in user.history])) for user in data.users]
    trained = [
        example(task.example(labelled.query.text, labelled.target))
        for entry in data.shared
        for labelled in entry.queries
    ]
    return TokenSummary(
        prompts=Spread.of(count([task.prompt(query.text).text for query in data.queries])),
        histories=Spread.of(histories),
        shared=Spread.of(count(trained)),
    )
