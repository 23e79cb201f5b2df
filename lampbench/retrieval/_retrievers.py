"""Retrievers: which of a user's history items go before a query."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

from lampbench.core import HistoryItem, InputError, Query, Task, User, derive_seed
from lampbench.retrieval._bm25 import Bm25Index
from lampbench.retrieval._dense import DenseEncoder

RetrieverName = Literal["bm25", "recency", "random", "dense"]
AskedFor = Literal["template", "text"]
ASKED_FOR_HELP = "the retriever's query: the task's own (template), or the text alone (text)"


class Retriever(ABC):
    """Ranks one user's history items for a query."""

    @abstractmethod
    def rank(self, query: Query, k: int, before: int | None = None) -> list[HistoryItem]:
        """At most ``k`` items, most relevant first.

        Args:
            query: What is asked.
            k: How many.
            before: Search only the first so many items of the history; None for all.
        """


class _Bm25(Retriever):
    def __init__(self, task: Task, user: User, asked: Callable[[str], str]) -> None:
        self._asked = asked
        self._history = user.history
        self._index = Bm25Index([task.document(item) for item in user.history])

    def rank(self, query: Query, k: int, before: int | None = None) -> list[HistoryItem]:
        best = self._index.top(self._asked(query.text), k, before)
        return [self._history[row] for row in best]


class _Recency(Retriever):
    def __init__(self, user: User) -> None:
        self._history = user.history

    def rank(self, query: Query, k: int, before: int | None = None) -> list[HistoryItem]:
        return list(reversed(self._history[:before]))[:k]


class _Random(Retriever):
    def __init__(self, user: User, seed: int) -> None:
        self._user = user
        self._seed = seed

    def rank(self, query: Query, k: int, before: int | None = None) -> list[HistoryItem]:
        generator = random.Random(derive_seed(self._seed, "random-retriever", self._user.id, query.id))
        visible = self._user.history[:before]
        return generator.sample(visible, min(k, len(visible)))


class _Dense(Retriever):
    def __init__(self, task: Task, user: User, asked: Callable[[str], str], encoder: DenseEncoder) -> None:
        self._asked = asked
        self._history = user.history
        self._encoder = encoder
        self._items = encoder.encode([task.document(item) for item in user.history])

    def rank(self, query: Query, k: int, before: int | None = None) -> list[HistoryItem]:
        vector = self._encoder.encode([self._asked(query.text)])[0]
        scores = self._items[:before] @ vector
        best = scores.argsort(kind="stable")[::-1][:k]
        return [self._history[row] for row in best]


class RetrieverFactory:
    """Makes one retriever per user.

    Args:
        name: ``bm25``, ``recency`` (latest first), ``random`` (seeded by user and query) or ``dense``.
        task: Words the documents and what is asked.
        seed: The run's seed.
        query: Whether ``bm25`` and ``dense`` are asked by the task's own retrieval query (``template``), or by
            the query's text alone (``text``).
        encoder: Makes the vectors of ``dense``.

    Raises:
        InputError: ``dense`` without an encoder.
    """

    def __init__(
        self,
        name: RetrieverName,
        task: Task,
        seed: int,
        *,
        query: AskedFor = "template",
        encoder: DenseEncoder | None = None,
    ) -> None:
        if name == "dense" and encoder is None:
            raise InputError("the dense retriever needs an encoder: --set encoder=PATH_OR_ID")
        self._name = name
        self._task = task
        self._seed = seed
        self._encoder = encoder
        self._asked = task.retrieval_query if query == "template" else str

    def __call__(self, user: User) -> Retriever:
        """The retriever over ``user``'s history."""
        if self._name == "dense" and self._encoder is not None:
            return _Dense(self._task, user, self._asked, self._encoder)
        if self._name == "recency":
            return _Recency(user)
        if self._name == "random":
            return _Random(user, self._seed)
        return _Bm25(self._task, user, self._asked)
