"""Some users of a split, each with a window of the history: what protocols are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import overload
from urllib.parse import quote

from lampbench.core import LabelledQuery, LabelledUser, Query, User
from lampbench.data.store._split import Split, StoredHistory
from lampbench.data.store._utf8 import HistoryHash


@dataclass(frozen=True, slots=True)
class Window:
    """What a protocol takes of one user.

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

    def __init__(self, split: Split, windows: Iterable[Window]) -> None:
        self.split = split
        self.windows = tuple(windows)

    @classmethod
    def whole(cls, split: Split) -> Selection:
        """All users, their whole histories, their own queries."""
        return cls(split, (Window(number, 0, length) for number, length in enumerate(split.lengths)))

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
        """Names the visible history; ``texts`` names the whole one, which tells people apart."""
        window = self.windows[index]
        stored = self.split.hashes[window.number]
        if (window.start, window.stop) == (0, self.split.lengths[window.number]):
            return stored
        cut = HistoryHash.of(self.split.history(window.number, window.start, window.stop))
        return HistoryHash(cut.whole, stored.texts)

    def _held_out(self, window: Window) -> list[LabelledQuery]:
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
