"""Checks on LaMP's records, each message naming file and record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lampbench.core import HistoryItem, InputError, LabelledQuery, Query, Task
from lampbench.data.files._dates import date_text, is_plain_date
from lampbench.data.files._json import kind, shown
from lampbench.data.files._reading import ReadingLog


class Columns(NamedTuple):
    """A history by columns, oldest item first; items of equal date in the order of the file."""

    ids: list[str]
    sources: list[str]
    targets: list[str]
    dates: list[str]

    def items(self) -> Iterator[HistoryItem]:
        """The history by rows."""
        return map(HistoryItem, *self)


@dataclass(frozen=True)
class Block:
    """What one record of a file says about a user.

    Attributes:
        user_id: The user.
        queries: Labelled queries.
        profile: The history as the file has it, unchecked.
        path: The file.
        where: File and record, for messages.
    """

    user_id: str
    queries: tuple[LabelledQuery, ...]
    profile: Any
    path: Path
    where: str


class Source(Protocol):
    """Files with records of users."""

    def files(self) -> Mapping[str, str]:
        """Name in a row -> path, of every file that is read."""

    def read(self, task: Task, log: ReadingLog) -> tuple[str | None, Iterator[Block]]:
        """What the files call themselves (``mini (synthetic)``; None for real data), and their blocks.

        Records that cannot be read go to ``log``, which raises InputError if none are tolerated.
        """


def read_columns(block: Block, task: Task, log: ReadingLog, *, encodable: bool = False) -> Columns:
    """A block's profile, checked and in time order; possibly empty.

    Args:
        block: The block.
        task: Whose items they are.
        log: Takes items that cannot be read, and what is ignored.
        encodable: Whether halves of surrogate pairs are looked for in all texts. That takes long: code that encodes
            the texts, and so finds out, reads them again with it.

    Raises:
        InputError: The profile is no list, or an item cannot be read and ``log`` is to take none.
    """
    profile = block.profile
    if not isinstance(profile, list):
        raise InputError(f"{block.where}: the profile is {kind(profile)}; expected a list of items")
    columns = None if encodable else _plain_columns(profile, task, log)
    if columns is None:
        rows = list(_items(block, task, log))
        columns = Columns(*map(list, zip(*rows, strict=True))) if rows else Columns([], [], [], [])
    log.items += len(profile)
    dates = columns.dates
    order = sorted(range(len(dates)), key=dates.__getitem__)
    if order == list(range(len(dates))):
        return columns
    return Columns(*([column[i] for i in order] for column in columns))


def read_query(record: Mapping[str, Any], user_id: str, task: Task, where: str, mended: str | None = None) -> Query:
    """A query from a record with ``id``, ``input`` and, beyond LaMP, ``date``.

    ``mended`` is the text that a defective input asks about.
    """
    raw_input = read_string(record, "input", where)
    text = task.source_text(raw_input, where) if mended is None else mended
    return Query(read_id(record, "id", where), user_id, text, _date(record, where))


def read_id(record: Mapping[str, Any], key: str, where: str) -> str:
    """An id: a string or a whole number."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{where}: {key!r} is {kind(value)}; expected a non-empty string or a whole number")
    return check_text(str(value), key, where)


def read_string(record: Mapping[str, Any], key: str, where: str) -> str:
    """A string, possibly empty."""
    value = record.get(key)
    if not isinstance(value, str):
        raise InputError(f"{where}: {key!r} is {kind(value)}; expected a string")
    return check_text(value, key, where)


def check_text(value: str, key: str, where: str) -> str:
    """Refuse half a surrogate pair, which JSON can escape but no file can contain."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: {key!r} holds {value[error.start]!r}, half of a surrogate pair, which is not text"
            ) from None
    return value


def read_answer(record: Mapping[str, Any], key: str, task: Task | None, where: str) -> str:
    """An answer: a string, and for ratings, or if no task is known, also a number."""
    value = record.get(key)
    if task is None or task.kind == "rating":
        value = _rating(value)
    if not isinstance(value, str):
        expected = "a string or a number" if task is None or task.kind == "rating" else "a string"
        raise InputError(f"{where}: {key!r} is {kind(value)}; expected {expected}")
    return check_text(value, key, where)


def check_object(record: Any, known: frozenset[str], wanted: str, where: str, log: ReadingLog) -> None:
    """Refuse what is not an object; count fields that no record of the kind has."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object with {wanted}, found {kind(record)}")
    if not known.issuperset(record):
        log.ignore(record.keys() - known)


def _plain_columns(profile: list[Any], task: Task, log: ReadingLog) -> Columns | None:
    """The columns of a profile without anything unusual, column by column for speed; else None."""
    if not profile:
        return Columns([], [], [], [])
    try:
        ids = [record["id"] for record in profile]
        targets = [record[task.item_target] for record in profile]
        sources = [record[task.item_source] for record in profile] if task.item_source else [""] * len(profile)
        dates = [record.get("date", "") for record in profile]
    except (KeyError, TypeError, AttributeError, IndexError):
        return None
    if set(map(type, dates)) != {str} or not all(map(is_plain_date, set(dates))):
        dates = [date_text(date) for date in dates]
    if task.kind == "rating" and set(map(type, targets)) != {str}:
        targets = list(map(_rating, targets))
    columns = Columns(ids, sources, targets, dates)
    usual = (
        all(set(map(type, column)) == {str} for column in columns)
        and len(set(ids)) == len(ids)
        and "" not in ids
        and (task.kind != "rating" or all(task.accepts(target.strip()) for target in set(targets)))
    )
    if not usual:
        return None
    if not all(task.item_fields.issuperset(fields) for fields in set(map(tuple, profile))):
        for record in profile:
            log.ignore(record.keys() - task.item_fields)
    return columns


def _items(block: Block, task: Task, log: ReadingLog) -> Iterator[tuple[str, str, str, str]]:
    """The items that can be read, each once."""
    seen: dict[str, tuple[str, str, str, str]] = {}
    for number, record in enumerate(block.profile):
        here = f"{block.where}: profile[{number}]"
        name = f"#{number}"
        try:
            if not isinstance(record, dict):
                raise InputError(f"{here}: expected an object, found {kind(record)}")
            item_id = name = read_id(record, "id", here)
            item = _item(record, item_id, task, here)
            if seen.get(item_id, item) != item:
                name = f"{item_id} (again, #{number})"
                raise InputError(f"{here}: the item id {item_id!r} occurs twice in this profile, for two items")
        except InputError as error:
            log.item_aside(error, block.path, f"{block.user_id}/{name}")
            continue
        log.ignore(record.keys() - task.item_fields)
        if item_id in seen:
            log.repeated_items += 1
            continue
        seen[item_id] = item
        yield item


def _item(record: Mapping[str, Any], item_id: str, task: Task, where: str) -> tuple[str, str, str, str]:
    source = read_string(record, task.item_source, where) if task.item_source else ""
    target = read_answer(record, task.item_target, task, where)
    if task.kind == "rating" and not task.accepts(target.strip()):
        low, *_, high = task.labels or ("1", "5")
        raise InputError(f"{where}: {task.item_target!r} is {shown(target)}; expected a number from {low} to {high}")
    return item_id, source, target, _date(record, where)


def _rating(value: Any) -> Any:
    """A number as text, as short as it can be; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _date(record: Mapping[str, Any], where: str) -> str:
    value = record.get("date")
    text = date_text(value)
    if text is None:
        raise InputError(
            f"{where}: the date is {shown(value)}; expected YYYY, YYYY-MM-DD, one of these with a time, Unix seconds, "
            "or no date"
        )
    return text
