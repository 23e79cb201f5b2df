"""Checks on LaMP's records, each message naming file and record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from lampbench.core import HistoryItem, InputError, LabelledQuery, Query, Task
from lampbench.data.files._json import kind, shown

_DATE = re.compile(r"[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?")


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
    """What one record of a file tells of a user.

    Attributes:
        user_id: The user.
        queries: Labelled queries.
        profile: The history as the file has it, unchecked.
        where: File and record, for messages.
    """

    user_id: str
    queries: tuple[LabelledQuery, ...]
    profile: Any
    where: str


class Source(Protocol):
    """Files that tell of users."""

    def files(self) -> Mapping[str, str]:
        """Name in a row -> path, of every file that is read."""

    def read(self, task: Task) -> tuple[str | None, Iterator[Block]]:
        """What the files call themselves (``mini (synthetic)``; None for real data), and their blocks."""


def read_columns(profile: Any, task: Task, where: str) -> Columns:
    """A profile, checked and in time order.

    Texts may still hold halves of surrogate pairs: code that encodes them finds out, and asks
    ``check_profile`` which.

    Raises:
        InputError: It is empty or no list, or an item has a wrong, missing or unknown field.
    """
    if not isinstance(profile, list) or not profile:
        raise InputError(f"{where}: the profile is {kind(profile)}; expected a non-empty list of items")
    columns = _plain_columns(profile, task) or Columns(*map(list, zip(*_items(profile, task, where), strict=True)))
    dates = columns.dates
    order = sorted(range(len(dates)), key=dates.__getitem__)
    if order == list(range(len(dates))):
        return columns
    return Columns(*([column[i] for i in order] for column in columns))


def check_profile(profile: Sequence[Any], task: Task, where: str) -> None:
    """Raise InputError for the first wrong item, texts that are no text included."""
    for _ in _items(profile, task, where):
        pass


def read_query(record: Mapping[str, Any], user_id: str, task: Task, where: str) -> Query:
    """A query from a record with ``id``, ``input`` and, beyond LaMP, ``date``."""
    text = task.source_text(read_string(record, "input", where), where)
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
    """Refuse half a character, which JSON can escape and no file can hold."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: {key!r} holds {value[error.start]!r}, half of a surrogate pair, which is no text"
            ) from None
    return value


def check_object(record: Any, known: frozenset[str], wanted: str, where: str) -> None:
    """Refuse what is no object, or has a field that no record of the kind has."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object with {wanted}, found {kind(record)}")
    unknown = sorted(set(record) - known)
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}")


def _plain_columns(profile: list[Any], task: Task) -> Columns | None:
    """The columns of a profile in which everything is as usual, column by column for speed; else None."""
    try:
        ids = [record["id"] for record in profile]
        targets = [record[task.item_target] for record in profile]
        sources = [record[task.item_source] for record in profile] if task.item_source else [""] * len(profile)
        dates = [record.get("date", "") for record in profile]
    except (KeyError, TypeError, AttributeError, IndexError):
        return None
    columns = Columns(ids, sources, targets, dates)
    usual = (
        all(set(map(type, column)) == {str} for column in columns)
        and len(set(ids)) == len(ids)
        and "" not in ids
        and all(task.item_fields.issuperset(fields) for fields in set(map(tuple, profile)))
        and all(map(_is_date, set(dates)))
        and (task.kind != "rating" or all(task.accepts(target.strip()) for target in set(targets)))
    )
    return columns if usual else None


@lru_cache(maxsize=1 << 16)
def _is_date(text: str) -> bool:
    return not text or _DATE.fullmatch(text) is not None


def _items(profile: Sequence[Any], task: Task, where: str) -> Iterator[tuple[str, str, str, str]]:
    seen: set[str] = set()
    for number, record in enumerate(profile):
        here = f"{where}: profile[{number}]"
        if not isinstance(record, dict):
            raise InputError(f"{here}: expected an object, found {kind(record)}")
        item_id = read_id(record, "id", here)
        if item_id in seen:
            raise InputError(f"{here}: the item id {item_id!r} occurs twice in this profile")
        seen.add(item_id)
        unknown = sorted(set(record) - task.item_fields)
        if unknown:
            known = ", ".join(sorted(task.item_fields))
            raise InputError(f"{here}: unknown field {unknown[0]!r}; items of {task.name} have: {known}")
        source = read_string(record, task.item_source, here) if task.item_source else ""
        target = read_string(record, task.item_target, here)
        if task.kind == "rating" and not task.accepts(target.strip()):
            raise InputError(f"{here}: {task.item_target!r} is {shown(target)}; expected a number from 1 to 5")
        yield item_id, source, target, _date(record, here)


def _date(record: Mapping[str, Any], where: str) -> str:
    value = record.get("date", "")
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if text is None or not _is_date(text):
        raise InputError(f"{where}: the date is {shown(value)}; expected YYYY, YYYY-MM-DD, or no date")
    return text
