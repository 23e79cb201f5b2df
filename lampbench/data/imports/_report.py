"""What an import found in its rows, in lines that a person reads before anything is written."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lampbench.core import InputError, Task
from lampbench.data._summary import Spread
from lampbench.data.files import most_tolerated
from lampbench.data.imports._table import Text

# UTF-8 that was read as Latin-1 or Windows-1252, and saved again.
_GARBLED = re.compile("[\u00c2\u00c3][\u0080-\u00bf\u2018-\u201e\u2020-\u2026\u20ac]|\u00e2\u20ac")
_NAMED = 3


@dataclass(frozen=True)
class Report:
    """What an import found, and what it will write.

    Attributes:
        rows: Rows in all tables.
        unreadable: Rows that are left out because they cannot be read.
        empty: What is empty -> rows that are left out for it.
        repeated: Rows that say again what the same user said.
        users: Users with at least one text.
        short: Users who are left out because they have too few texts.
        evaluated, shared: Users that are written.
        queries: Queries of evaluated users.
        history: How many history items evaluated and shared users have; None if there are none.
        dates: The first and the last date, or None.
        notes: What may be wrong with the data, one line each.
    """

    rows: int
    unreadable: int
    empty: dict[str, int]
    repeated: int
    users: int
    short: int
    evaluated: int
    shared: int
    queries: int
    history: Spread | None
    dates: tuple[str, str] | None
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report, a fact a line."""
        lines = [f"rows: {self.rows:,}"]
        lines += [f"  left out, {what}: {count:,}" for what, count in sorted(self.empty.items())]
        if self.unreadable:
            lines.append(f"  left out, they cannot be read: {self.unreadable:,}")
        if self.repeated:
            lines.append(f"  left out, the same user's same text again: {self.repeated:,}")
        if self.dates:
            lines.append(f"dates: {self.dates[0]} to {self.dates[1]}")
        else:
            lines.append("dates: none; rows are taken to be in time order")
        lines.append(f"users: {self.users:,}")
        if self.short:
            lines.append(f"  left out, too few texts: {self.short:,}")
        lines.append(f"  evaluated: {self.evaluated:,}, with {self.queries:,} queries")
        lines.append(f"  shared, for methods that learn the task from other users: {self.shared:,}")
        if self.history:
            lines.append(f"history items per user: median {self.history.median:g}, largest {self.history.largest:,}")
        return [*lines, *(f"note: {note}" for note in self.notes)]


@dataclass
class Tally:
    """Counts while rows are read."""

    task: Task
    tolerate: float
    rows: int = 0
    empty: Counter[str] = field(default_factory=Counter)
    _faults: list[str] = field(default_factory=list)
    _faulty: int = 0
    _repeated: int = 0
    _users: int = 0
    _short: int = 0
    _evaluated: int = 0
    _shared: int = 0
    _queries_per_user: int = 0
    _history: Counter[int] = field(default_factory=Counter)
    _dates: tuple[str, str] | None = None
    _labels: Counter[str] = field(default_factory=Counter)
    _long: int = 0
    _garbled: int = 0
    _garbled_example: str = ""
    # Of what may be millions of users, eight bytes each.
    _spellings: array[int] = field(default_factory=lambda: array("q"))
    _alike: list[str] = field(default_factory=list)
    _alike_count: int = 0

    def fault(self, what: str, where: str) -> None:
        """Note a row that cannot be read."""
        self._faulty += 1
        if len(self._faults) < _NAMED:
            self._faults.append(f"{where}: {what}")

    def faults(self) -> list[str]:
        """How many rows cannot be read, and the first of them with its reason, a line each."""
        if not self._faulty:
            return []
        return [f"left out, they cannot be read: {self._faulty:,}", *(f"note: {fault}" for fault in self._faults)]

    def check_rows(self) -> None:
        """Raise InputError if there are no rows, or if too many of them cannot be read."""
        if not self.rows:
            raise InputError("there are no rows; expected a header and a row per text")
        allowed = most_tolerated(self.tolerate, self.rows)
        if self._faulty > allowed:
            raise InputError(
                f"{self._faults[0]}; {self._faulty:,} of {self.rows:,} rows cannot be read, and --tolerate "
                f"{self.tolerate:g} allows {allowed:,}"
            )

    def user(self, user: str, rows: int, texts: Sequence[Text], queries: int) -> None:
        """Note a user with different texts, of whom so many are asked about; 0 leaves the user out."""
        self._users += 1
        self._repeated += rows - len(texts)
        self._spellings.append(hash(_plain(user)))
        if not queries:
            self._short += 1
            return
        self._queries_per_user = queries
        self._history[len(texts) - queries] += 1
        if texts[0].date:
            first, last = self._dates or (texts[0].date, texts[-1].date)
            self._dates = min(first, texts[0].date), max(last, texts[-1].date)
        for text in texts:
            if self.task.kind == "labels":
                self._labels[text.target] += 1
            # A word is at least a token.
            elif self.task.kind == "text" and len(text.target.split()) > self.task.max_new_tokens:
                self._long += 1
            if not text.target.isascii() and _GARBLED.search(text.target):
                self._garbled += 1
                self._garbled_example = self._garbled_example or f"row {text.number}"

    def compare_spellings(self, users: Iterable[str]) -> None:
        """Note who differs from others only in spelling; ``users``, all of them, are read only if there is anyone."""
        hashes, counts = np.unique(np.frombuffer(self._spellings, np.int64), return_counts=True)
        several = frozenset(hashes[counts > 1].tolist())
        first: dict[str, str] = {}
        for user in users if several else ():
            plain = _plain(user)
            if hash(plain) not in several or first.setdefault(plain, user) == user:
                continue
            self._alike_count += 1
            if len(self._alike) < _NAMED:
                self._alike.append(f"{first[plain]!r} and {user!r}")

    def split(self, evaluated: int, shared: int) -> None:
        """Note how many users are evaluated and shared."""
        self._evaluated, self._shared = evaluated, shared

    def report(self) -> Report:
        """What was found."""
        return Report(
            rows=self.rows,
            unreadable=self._faulty,
            empty=dict(self.empty),
            repeated=self._repeated,
            users=self._users,
            short=self._short,
            evaluated=self._evaluated,
            shared=self._shared,
            queries=self._evaluated * self._queries_per_user,
            history=Spread.of(self._history.elements()),
            dates=self._dates,
            notes=tuple(self._notes()),
        )

    def _notes(self) -> list[str]:
        notes = [f"cannot be read: {fault}" for fault in self._faults]
        if self._alike:
            named = ", ".join(self._alike)
            notes.append(f"{self._alike_count:,} users differ from others only in spelling, and stay apart: {named}")
        once = [label for label, count in self._labels.items() if count == 1]
        if once:
            named = ", ".join(map(repr, sorted(once)[:_NAMED]))
            notes.append(f"{len(once):,} labels occur once, and nobody can learn them: {named}")
        if self._long:
            notes.append(
                f"{self._long:,} targets have more words than the task's max_new_tokens ({self.task.max_new_tokens}): "
                "no answer can be as long"
            )
        if self._garbled:
            notes.append(
                f"{self._garbled:,} targets look like UTF-8 that was read as another encoding, the first in "
                f"{self._garbled_example}"
            )
        if not self._shared:
            notes.append("no user is shared: methods with a shared stage, such as perfit and oppu, cannot run")
        return notes


def _plain(user: str) -> str:
    """The same for all spellings of a user's name."""
    return " ".join(unicodedata.normalize("NFKC", user).casefold().split())
