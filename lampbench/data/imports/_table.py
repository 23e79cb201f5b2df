"""Rows of many users, put in order on disk: memory does not grow with them."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

# Of pages in memory.
_CACHE_KIB = 64 << 10


class Text(NamedTuple):
    """A row that can be used.

    Attributes:
        number: Its place among all rows.
        user: Who wrote it.
        date: In a form that sorts by time; empty if rows are in time order.
        source: What is asked about.
        target: The answer.
    """

    number: int
    user: str
    date: str
    source: str
    target: str


class TextTable:
    """Texts in a file that this process alone uses; it is deleted with its folder.

    Raises:
        OSError: The file system refuses, here or in a method.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "texts.sqlite"
        with self._written():
            self._base = sqlite3.connect(self._path, isolation_level=None)
            # What is in the file is worth nothing after a crash.
            for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_CACHE_KIB}"):
                self._base.execute(f"PRAGMA {setting}")
            self._base.execute("CREATE TABLE read (number INTEGER PRIMARY KEY, user, date, source, target)")

    def fill(self, texts: Iterable[Text]) -> None:
        """Take all texts, and put them in order of user and time; equal times in the order of the rows."""
        with self._written():
            self._base.execute("BEGIN")
            self._base.executemany("INSERT INTO read VALUES (?, ?, ?, ?, ?)", texts)
            self._base.execute("COMMIT")
            self._base.execute("CREATE TABLE ordered AS SELECT * FROM read ORDER BY user, date, number")
            self._base.execute("DROP TABLE read")

    def users(self) -> Iterator[tuple[str, list[Text]]]:
        """Each user with all texts, the oldest first."""
        rows = map(Text._make, self._base.execute("SELECT * FROM ordered ORDER BY rowid"))
        for user, own in groupby(rows, key=itemgetter(1)):
            yield user, list(own)

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Turns SQLite's words for a full or broken disk into the system's."""
        try:
            yield
        except sqlite3.OperationalError as error:
            number = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
            raise OSError(number, os.strerror(number), str(self._path)) from error
