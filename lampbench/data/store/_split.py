"""A split as it is stored, some users of it, and histories that are read when they are first looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, overload
from urllib.parse import quote

import pyarrow as pa

from lampbench.core import HistoryItem, LabelledQuery, LabelledUser, Query, User
from lampbench.data.files import Columns, Reading
from lampbench.data.store._tables import HistoryHash, ListColumn


@dataclass(frozen=True)
class SplitFacts:
    """The content of a manifest.

    Attributes:
        sources: Name -> SHA-256 of every file it was made from.
        label: What the data calls itself; None for real data.
        dropped_items: History items that are in only some of their user's profiles, and left out.
        dropped_users: Users who have no history then, left out with their queries.
        reading: What was set aside, mended or ignored.
    """

    sources: Mapping[str, str]
    label: str | None
    dropped_items: int
    dropped_users: int
    reading: Reading


class Split:
    """The users of a split, in order of their first appearance, as memory-mapped tables."""

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
    """A history that behaves like a tuple; its length is known at once, its items are read when they are first used."""

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


@dataclass(frozen=True, slots=True)
class UserWindow:
    """What a protocol uses of one user.

    Attributes:
        number: The user's place in the split.
        start, stop: The part of the history that is visible.
        held_out: So many items after ``stop`` are asked as queries.
    """

    number: int
    start: int
    stop: int
    held_out: int = 0


class Selection(Sequence[LabelledUser]):
    """Users with labelled queries, read from a split when they are asked for."""

    def __init__(self, split: Split, windows: Iterable[UserWindow]) -> None:
        self.split = split
        self.windows = tuple(windows)

    @classmethod
    def whole(cls, split: Split) -> Selection:
        """All users, their whole histories, their own queries."""
        return cls(split, (UserWindow(number, 0, length) for number, length in enumerate(split.lengths)))

    @property
    def ids(self) -> list[str]:
        """User ids."""
        ids = self.split.ids
        return [ids[window.number] for window in self.windows]

    def __len__(self) -> int:
        return len(self.windows)

    @overload
    def __getitem__(self, index: int) -> LabelledUser: ...
    @overload
    def __getitem__(self, index: slice) -> Selection: ...
    def __getitem__(self, index: int | slice) -> LabelledUser | Selection:
        if isinstance(index, slice):
            return Selection(self.split, self.windows[index])
        window = self.windows[index]
        user_id = self.split.ids[window.number]
        read = partial(self.split.history, window.number, window.start, window.stop)
        user = User(user_id, StoredHistory(window.stop - window.start, read))
        return LabelledUser(user, (*self.split.queries(window.number), *self._held_out(window)))

    def history_hash(self, index: int) -> HistoryHash:
        """Identifies the visible history; ``texts`` identifies the whole one, and so a person under two ids."""
        window = self.windows[index]
        stored = self.split.hashes[window.number]
        if (window.start, window.stop) == (0, self.split.lengths[window.number]):
            return stored
        cut = HistoryHash.of(self.split.history(window.number, window.start, window.stop))
        return HistoryHash(cut.whole, stored.texts)

    def _held_out(self, window: UserWindow) -> list[LabelledQuery]:
        if not window.held_out:
            return []
        user_id = self.split.ids[window.number]
        columns = self.split.history(window.number, window.stop, window.stop + window.held_out)
        return [
            # Escaped, so that no two users and items make one id.
            LabelledQuery(
                Query(f"{quote(user_id, safe='')}/{quote(item.id, safe='')}", user_id, item.source, item.date),
                item.target,
            )
            for item in columns.items()
        ]
