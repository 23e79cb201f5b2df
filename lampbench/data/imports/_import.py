"""Which rows become history, queries and golds of which users, and what a reader should know of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampbench.core import HistoryItem, InputError, LabelledQuery, LabelledUser, Query, Task, User, derive_seed
from lampbench.data.files import Exported, date_text, export
from lampbench.data.imports._report import Report, Tally
from lampbench.data.imports._rows import Columns, RowFile, text_of
from lampbench.data.imports._table import Text, TextTable

# A spreadsheet's formula, or what it shows if one fails.
_FORMULA = re.compile(
    r"=\s*[A-Z][A-Z0-9_.]*\s*\(|=\$?[A-Z]{1,3}\$?[0-9]+\b|#(?:REF!|NAME\?|VALUE!|DIV/0!|N/A|NULL!|NUM!)$"
)
_SHOWN = 60
_PROGRESS = 1_000_000


@dataclass(frozen=True)
class Choice:
    """How rows become users.

    Attributes:
        queries: How many of a user's latest texts are asked about.
        min_history: How many texts a user must have beside these.
        shared: The share of users from whom methods may learn the task; the others are evaluated.
        seed: Chooses the shared users.
        tolerate: The share of rows that may be left out because they cannot be read.

    Raises:
        InputError: A number is out of its range.
    """

    queries: int = 2
    min_history: int = 4
    shared: float = 0.3
    seed: int = 0
    tolerate: float = 0.01

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise InputError(f"--queries must be at least 1, found {self.queries}")
        if self.min_history < 1:
            raise InputError(f"--min-history must be at least 1, found {self.min_history}")
        if not 0 <= self.shared < 1:
            raise InputError(f"--shared must be a share from 0 to below 1, found {self.shared:g}")
        if not 0 <= self.tolerate <= 1:
            raise InputError(f"--tolerate must be a share from 0 to 1, found {self.tolerate:g}")

    def takes(self, texts: Sequence[Text]) -> bool:
        """Whether a user has enough different texts."""
        return len(texts) >= self.queries + self.min_history


@dataclass(frozen=True)
class Import:
    """Rows that were read and put in order; nothing is written yet.

    Attributes:
        report: What was found, and who will be written.
    """

    report: Report
    _task: Task
    _choice: Choice
    _table: TextTable
    _shared: frozenset[str]

    def write(self, folder: Path) -> list[Path]:
        """Write the users below ``folder`` in LaMP's layout; gives the files."""
        evaluated, shared = (
            _Users(self._table, self._shared, are_shared, count, self._choice)
            for are_shared, count in ((False, self.report.evaluated), (True, self.report.shared))
        )
        return export(Exported(self._task, evaluated, shared, label=None), "lamp", folder)


@contextmanager
def importing(
    files: Sequence[RowFile],
    columns: Columns,
    task: Task,
    choice: Choice,
    place: Path,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Import]:
    """Read all rows and decide what becomes of them.

    Args:
        files: The tables.
        columns: Which columns hold what.
        task: Whose answers the targets are.
        choice: How rows become users.
        place: A folder for a temporary file of about the size of the tables.
        say: Gets a line when reading takes long.

    Raises:
        InputError: A file or column is missing or wrong, too many rows cannot be read, or no user has enough texts.
    """
    if task.item_source is None:
        raise InputError(f"{task.name} has no source text to ask about; choose another task, or describe one in a file")
    wanted = 1 if task.definition is None else len(task.definition.source)
    if len(columns.sources) != wanted:
        raise InputError(f"--source names {len(columns.sources)} columns; {task.name} has {wanted} source fields")
    table = TextTable(place)
    try:
        tally = Tally(task, choice.tolerate)
        table.fill(_texts(files, columns, task, tally, say))
        tally.check_rows()
        shared = _chosen(table, choice, tally)
        yield Import(tally.report(), task, choice, table, shared)
    finally:
        table.close()


def _chosen(table: TextTable, choice: Choice, tally: Tally) -> frozenset[str]:
    """Shared users; others with enough texts are evaluated. Raises InputError if there are none to evaluate."""
    enough, longest = [], 0
    for user, texts in table.users():
        own = _once(texts)
        longest = max(longest, len(own))
        long_enough = choice.takes(own)
        if long_enough:
            enough.append(user)
        tally.user(user, len(texts), own, choice.queries if long_enough else 0)
    tally.compare_spellings(user for user, _ in table.users())
    if not enough:
        raise InputError(
            f"no user has {choice.queries + choice.min_history} different texts (--queries {choice.queries} and "
            f"--min-history {choice.min_history}), the longest has {longest}; lower them, or check --user"
        )
    count = min(round(choice.shared * len(enough)), len(enough) - 1)
    enough.sort(key=lambda user: derive_seed(choice.seed, "shared users", user))
    tally.split(len(enough) - count, count)
    return frozenset(enough[:count])


def _texts(
    files: Sequence[RowFile], columns: Columns, task: Task, tally: Tally, say: Callable[[str], None]
) -> Iterator[Text]:
    """The rows that can be used; the others go to ``tally``."""
    number = 0
    for file in files:
        for where, row in file.rows(columns):
            number += 1
            tally.rows += 1
            if number % _PROGRESS == 0:
                say(f"{number:,} rows read")
            text = row if isinstance(row, str) else _text(row, columns, task, number)
            if isinstance(text, Text):
                yield text
            elif text in _EMPTY:
                tally.empty[text] += 1
            else:
                tally.fault(text, f"{file.path}: {where}")


_EMPTY = ("the source is empty", "the target is empty")


def _text(row: Mapping[str, Any], columns: Columns, task: Task, number: int) -> Text | str:
    """A row as a text, or what is wrong with it."""
    values: dict[str, str] = {}
    for name, value in row.items():
        text = text_of(value)
        if text is None:
            return f"{name!r} is a {type(value).__name__}; expected text"
        if text[:1] in "=#" and _FORMULA.match(text):
            return f"{name!r} is {_short(text)}, a formula or its error; save the table with values"
        values[name] = text
    user, target = values[columns.user], values[columns.target]
    if not user:
        return f"{columns.user!r}, the user, is empty"
    sources = [values[name] for name in columns.sources]
    if not any(sources):
        return _EMPTY[0]
    if not target:
        return _EMPTY[1]
    source = sources[0]
    if task.definition is not None:
        source = task.definition.joined(dict(zip(task.definition.source, sources, strict=True)))
    if task.kind == "rating":
        # As the official files write it.
        target = target.removesuffix(".0")
    if not task.accepts(target):
        return f"{columns.target!r} is {_short(target)}, no answer of {task.name}"
    if task.kind == "labels" and "\n" in target:
        return f"{columns.target!r} is {_short(target)}; a label is one line"
    day = "" if columns.date is None else date_text(values[columns.date])
    if day is None:
        return f"{columns.date!r} is {_short(values[str(columns.date)])}; expected YYYY-MM-DD, or that with a time"
    if columns.date is not None and not day:
        return f"{columns.date!r}, the date, is empty"
    try:
        f"{user}{source}{target}".encode()
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which is not text"
    return Text(number, user, day, source, target)


def _once(texts: Sequence[Text]) -> list[Text]:
    """Each source and target once, where it is first."""
    first: dict[tuple[str, str], Text] = {}
    for text in texts:
        first.setdefault((text.source, text.target), text)
    return list(first.values())


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


@dataclass(frozen=True)
class _Users(Collection[LabelledUser]):
    """The table's evaluated or shared users, one at a time: only the names of shared users are in memory."""

    table: TextTable
    shared: frozenset[str]
    are_shared: bool
    count: int
    choice: Choice

    def __len__(self) -> int:
        return self.count

    def __contains__(self, user: object) -> bool:
        return any(user == own for own in self)

    def __iter__(self) -> Iterator[LabelledUser]:
        for user, texts in self.table.users():
            if (user in self.shared) == self.are_shared and self.choice.takes(own := _once(texts)):
                yield _labelled(user, own[: -self.choice.queries], own[-self.choice.queries :])


def _labelled(user: str, history: Sequence[Text], asked: Sequence[Text]) -> LabelledUser:
    items = tuple(HistoryItem(str(text.number), text.source, text.target, text.date) for text in history)
    queries = (Query(str(text.number), user, text.source, text.date) for text in asked)
    return LabelledUser(
        User(user, items), tuple(LabelledQuery(q, text.target) for q, text in zip(queries, asked, strict=True))
    )
