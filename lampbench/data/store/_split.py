"""A split as it is stored, and histories that are read when somebody looks into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import pyarrow as pa

from lampbench.core import HistoryItem, LabelledQuery, Query
from lampbench.data.files import Columns
from lampbench.data.store._tables import ListColumn
from lampbench.data.store._utf8 import HistoryHash


@dataclass(frozen=True)
class SplitFacts:
    """What a manifest says.

    Attributes:
        sources: Name -> SHA-256 of every file it was made from.
        label: What the data calls itself; None for real data.
        dropped_items: History items that are in only some of their user's profiles, and left out.
        dropped_users: Users who have no history then, left out with their queries.
    """

    sources: Mapping[str, str]
    label: str | None
    dropped_items: int
    dropped_users: int


class Split:
    """The users of a split, in order of their first appearance, as mapped tables."""

    def __init__(self, histories: pa.Table, users: pa.Table, facts: SplitFacts, key: str | None) -> None:
        self.facts = facts
        # Names the content in the cache; None for what is held in memory.
        self.key = key
        self._histories = ListColumn(histories, "items")
        self._queries = ListColumn(users, "queries")
        self._users = users

    def __len__(self) -> int:
        return int(self._users.num_rows)

    @cached_property
    def ids(self) -> list[str]:
        """User ids."""
        return self._column("id")

    @cached_property
    def lengths(self) -> list[int]:
        """Items in each user's history."""
        return self._column("items")

    @cached_property
    def hashes(self) -> list[HistoryHash]:
        """Of each user's history."""
        return list(map(HistoryHash, self._column("history"), self._column("texts")))

    def history(self, number: int, start: int, stop: int) -> Columns:
        """Items ``start`` to ``stop`` of a user's history."""
        return Columns(*self._histories.row(self._rows[number], start, stop))

    def queries(self, number: int) -> tuple[LabelledQuery, ...]:
        """A user's own labelled queries."""
        user_id = self.ids[number]
        return tuple(
            LabelledQuery(Query(query_id, user_id, text, date), gold)
            for query_id, date, text, gold in zip(*self._queries.row(number), strict=True)
        )

    @cached_property
    def _rows(self) -> list[int]:
        return self._column("row")

    def _column(self, name: str) -> list[Any]:
        values: list[Any] = self._users.column(name).to_pylist()
        return values


class StoredHistory(Sequence[HistoryItem]):
    """A history that reads as a tuple; its length is known at once, its items when they are first looked at."""

    def __init__(self, length: int, read: Callable[[], Columns]) -> None:
        self._length = length
        self._read = read

    @cached_property
    def _items(self) -> tuple[HistoryItem, ...]:
        return tuple(self._read().items())

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> HistoryItem: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[HistoryItem, ...]: ...
    def __getitem__(self, index: int | slice) -> HistoryItem | tuple[HistoryItem, ...]:
        return self._items[index]

    def __iter__(self) -> Iterator[HistoryItem]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (tuple, StoredHistory)) and self._items == tuple(other)

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"<history of {self._length} items>"

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        # Another process gets the items themselves.
        return tuple, (self._items,)
