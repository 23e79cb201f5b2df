"""LaMP's own files: a questions file and an outputs file, checked record by record.

Formats: the LaMP benchmark's public repository (Salemi et al., ACL 2024). Questions are a JSON list
of ``{"id", "input", "profile": [...]}``, with ``"user_id"`` in the time-based split; outputs and
predictions are ``{"task", "golds": [{"id", "output"}]}``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampbench.core import HistoryItem, InputError, Query, Task, User

_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")
_QUESTION_FIELDS = frozenset({"id", "user_id", "input", "profile"})


@dataclass(frozen=True)
class Questions:
    """A questions file: users in order of appearance, their queries, and what was left out."""

    users: tuple[User, ...]
    queries: tuple[Query, ...]
    sha256: str
    dropped_items: int


def read_json(path: Path) -> tuple[Any, str]:
    """A JSON file's value and the SHA-256 of its bytes.

    Raises:
        InputError: The file is missing, unreadable, not UTF-8, or not JSON (cut files included).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise InputError(f"{path}: {reason}") from None
    try:
        return json.loads(raw.decode("utf-8")), hashlib.sha256(raw).hexdigest()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "is the file cut short? Fetch it again"
        ) from None


@dataclass(frozen=True)
class Outputs:
    """A golds or predictions file.

    Attributes:
        by_id: Question id -> output, in file order.
        sha256: Of the file.
        label: What the file calls itself under ``about``, as synthetic files do; else None.
    """

    by_id: dict[str, str]
    sha256: str
    label: str | None


def read_outputs(path: Path, task: Task) -> Outputs:
    """A golds or predictions file.

    Raises:
        InputError: Wrong shape, a duplicate id, or a file of another LaMP task.
    """
    content, sha256 = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("golds"), list):
        raise InputError(f'{path}: expected {{"task": …, "golds": [{{"id", "output"}}]}}, found {_kind(content)}')
    _check_task(path, content.get("task"), task)
    outputs: dict[str, str] = {}
    for number, record in enumerate(content["golds"]):
        where = f"{path}: golds[{number}]"
        if not isinstance(record, dict):
            raise InputError(f'{where}: expected {{"id", "output"}}, found {_kind(record)}')
        record_id = _id(record, "id", where)
        if record_id in outputs:
            raise InputError(f"{where}: the id {record_id!r} occurs twice; every question has one output")
        outputs[record_id] = _string(record, "output", f"{where} (id {record_id!r})")
    about = content.get("about")
    return Outputs(outputs, sha256, about if isinstance(about, str) else None)


def read_golds(path: Path, task: Task) -> Outputs:
    """As ``read_outputs``, for a golds file: not empty, and every output a valid answer of the task."""
    golds = read_outputs(path, task)
    if not golds.by_id:
        raise InputError(f"{path}: there are no golds in it")
    for query_id, gold in golds.by_id.items():
        if not task.accepts(gold.strip()):
            known = f"; known: {', '.join(task.labels)}" if task.labels else ""
            raise InputError(f"{path}: the gold of {query_id!r} is {gold!r}, which is no answer of {task.name}{known}")
    return golds


def read_questions(path: Path, task: Task) -> Questions:
    """A questions file. Each user's history is sorted by date; items of equal date keep their order.

    Where one user's questions come with different profiles, the history is what all of them share,
    so that no question can see an item which its own profile does not list.

    Raises:
        InputError: Wrong shape, duplicate ids, an empty profile, an unknown or missing field, an
            input without the task's marker. The message names file and record.
    """
    content, sha256 = read_json(path)
    if not isinstance(content, list) or not content:
        raise InputError(f"{path}: expected a non-empty JSON list of questions, found {_kind(content)}")
    queries: dict[str, Query] = {}
    profiles: dict[str, list[Any]] = {}
    histories: dict[str, list[HistoryItem]] = {}
    seen: dict[str, set[HistoryItem]] = {}
    for number, record in enumerate(content):
        where = f"{path}: question {number}"
        query = _query(record, task, where)
        where = f"{where} (id {query.id!r})"
        if query.id in queries:
            raise InputError(f"{where}: the id occurs twice")
        queries[query.id] = query
        profile = record["profile"]
        known = profiles.get(query.user_id)
        if known is None:
            profiles[query.user_id] = profile
            histories[query.user_id] = list(_items(profile, task, where))
            seen[query.user_id] = set(histories[query.user_id])
        elif known != profile:
            visible = set(_items(profile, task, where))
            seen[query.user_id] |= visible
            histories[query.user_id] = [item for item in histories[query.user_id] if item in visible]
    users = tuple(_user(user_id, items, path) for user_id, items in histories.items())
    dropped = sum(len(seen[user.id]) - len(user.history) for user in users)
    _check_user_ids(content, path)
    return Questions(users, tuple(queries.values()), sha256, dropped)


def check_same_ids(questions: set[str], outputs: set[str], questions_path: Path, outputs_path: Path) -> None:
    """Raise InputError unless both files speak of the same ids."""
    for found, wanted, there, here in (
        (outputs, questions, questions_path, outputs_path),
        (questions, outputs, outputs_path, questions_path),
    ):
        missing = sorted(wanted - found)
        if missing:
            raise InputError(
                f"{here}: {len(missing)} of the {len(wanted)} ids of {there} are missing, the first is {missing[0]!r}; "
                "both files must come from the same split"
            )


def _query(record: Any, task: Task, where: str) -> Query:
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object with id, input and profile, found {_kind(record)}")
    query_id = _id(record, "id", where)
    where = f"{where} (id {query_id!r})"
    unknown = sorted(set(record) - _QUESTION_FIELDS)
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(_QUESTION_FIELDS))}")
    if not isinstance(record.get("profile"), list) or not record["profile"]:
        found = _kind(record.get("profile"))
        raise InputError(f"{where}: the profile is {found}; expected a non-empty list of items")
    user_id = _id(record, "user_id", where) if "user_id" in record else query_id
    return Query(query_id, user_id, task.source_text(_string(record, "input", where), where))


def _items(profile: list[Any], task: Task, where: str) -> Iterator[HistoryItem]:
    seen: set[str] = set()
    for number, record in enumerate(profile):
        here = f"{where}: profile[{number}]"
        if not isinstance(record, dict):
            raise InputError(f"{here}: expected an object, found {_kind(record)}")
        item_id = _id(record, "id", here)
        if item_id in seen:
            raise InputError(f"{here}: the item id {item_id!r} occurs twice in this profile")
        seen.add(item_id)
        unknown = sorted(set(record) - task.item_fields)
        if unknown:
            known = ", ".join(sorted(task.item_fields))
            raise InputError(f"{here}: unknown field {unknown[0]!r}; items of {task.name} have: {known}")
        source = _string(record, task.item_source, here) if task.item_source else ""
        target = _string(record, task.item_target, here)
        if task.kind == "rating" and not task.accepts(target.strip()):
            raise InputError(f"{here}: {task.item_target!r} is {target!r}; expected a number from 1 to 5")
        yield HistoryItem(item_id, source, target, _date(record, here))


def _user(user_id: str, items: list[HistoryItem], path: Path) -> User:
    if not items:
        raise InputError(f"{path}: the questions of user {user_id!r} have no profile item in common")
    return User(user_id, tuple(sorted(items, key=lambda item: item.date)))


def _check_user_ids(records: list[dict[str, Any]], path: Path) -> None:
    with_user = sum("user_id" in record for record in records)
    if with_user not in (0, len(records)):
        raise InputError(
            f"{path}: {with_user} of {len(records)} questions have a user_id; expected all (time-based split) or none"
        )


def _check_task(path: Path, found: Any, task: Task) -> None:
    # Files of other makers carry names of their own; only another LaMP task's name is surely wrong.
    if isinstance(found, str) and re.fullmatch(r"LaMP_\d[MN]?", found) and found not in task.official:
        raise InputError(f"{path}: this file says task {found!r}, expected {' or '.join(map(repr, task.official))}")


def _id(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{where}: {key!r} is {_kind(value)}; expected a non-empty string or a whole number")
    return str(value)


def _string(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise InputError(f"{where}: {key!r} is {_kind(value)}; expected a string")
    return value


def _date(record: dict[str, Any], where: str) -> str:
    value = record.get("date", "")
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if text is None or (text and not _DATE.fullmatch(text)):
        raise InputError(f"{where}: the date is {value!r}; expected YYYY, YYYY-MM-DD, or no date")
    return text


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, (list, dict, str)) and not value:
        return f"an empty {type(value).__name__}"
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__} ({str(value)[:40]!r})"
