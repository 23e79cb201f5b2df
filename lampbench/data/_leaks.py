"""Leak checks: what could let a score stand for something else than personalization."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from lampbench.core import HistoryItem, LabelledQuery, LabelledUser, Task

_EXAMPLES = 5
_LONGEST_NAME = 60

# Name -> what was found, for "N of M ...".
LEAKS: Mapping[str, str] = {
    "shared_users": "evaluated users are also shared users",
    "duplicate_users": "evaluated users have the same history texts as another user id",
    "query_in_history": "queries ask about a text that is in the user's own history",
    "query_in_history_normalised": "queries ask about such a text, ignoring case, spaces and punctuation",
    "gold_in_history": "golds are an item's target in the user's own history",
    "gold_in_history_normalised": "golds are such a target, ignoring case, spaces and punctuation",
    "query_in_shared": "queries ask about a training text of shared users, ignoring case, spaces and punctuation",
    "query_in_shared_history": "queries ask about exactly a text in a shared user's history",
    "later_history": "dated queries come before an item of the user's own history",
}


@dataclass(frozen=True, slots=True)
class Leak:
    """What one check found.

    Attributes:
        name: A key of ``LEAKS``.
        count: How many, or None if the data cannot tell (queries without dates, golds that are labels).
        of: Of how many.
        examples: The first ids.
    """

    name: str
    count: int | None
    of: int
    examples: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, name: str, value: Mapping[str, Any]) -> Leak:
        """What ``to_json`` gave."""
        return cls(name, value["count"], value["of"], tuple(value["examples"]))

    def to_json(self) -> dict[str, Any]:
        """The finding under its name, as rows hold it."""
        return {"count": self.count, "of": self.of, "examples": list(self.examples)}

    @property
    def text(self) -> str:
        """The finding in one line."""
        examples = (
            f" ({', '.join(map(_one_line, self.examples))}{' …' if (self.count or 0) > len(self.examples) else ''})"
        )
        return f"{self.count} of {self.of} {LEAKS[self.name]}{examples if self.examples else ''}"


def _one_line(name: str) -> str:
    return name if name.isprintable() and len(name) <= _LONGEST_NAME else f"{name!r:.{_LONGEST_NAME}}"


def findings(leaks: Collection[Leak]) -> list[str]:
    """What was found, one line each; nothing twice if exact and normalized texts give the same."""
    counts = {leak.name: leak.count for leak in leaks}

    def is_news(leak: Leak) -> bool:
        exact = leak.name.removesuffix("_normalised")
        return bool(leak.count) and (exact == leak.name or leak.count != counts.get(exact))

    return [leak.text for leak in leaks if is_news(leak)]


def find_leaks(
    task: Task,
    shared: Sequence[LabelledUser],
    evaluated: Sequence[LabelledUser],
    shared_texts: Sequence[str | None],
    evaluated_texts: Sequence[str | None],
) -> tuple[Leak, ...]:
    """Every check of ``LEAKS``, in that order.

    Args:
        task: The task. Golds are looked for if they are texts: a label is in every history. Queries
            are looked for among shared ones where answers are no labels: many users tag one film.
        shared: Users of the shared split.
        evaluated: Evaluated users.
        shared_texts: A hash of each shared user's history texts; None for a user without a history.
        evaluated_texts: The same of evaluated users.
    """
    shared_ids = [entry.user.id for entry in shared]
    evaluated_ids = [entry.user.id for entry in evaluated]
    both = set(shared_ids).intersection(evaluated_ids)
    found = _Finds(len(evaluated_ids), sum(len(entry.queries) for entry in evaluated))
    found.add("shared_users", (user_id for user_id in evaluated_ids if user_id in both))
    found.add("duplicate_users", _twins(evaluated_ids, evaluated_texts, shared_ids, shared_texts))
    _look_into_histories(found, task, evaluated, _shared_questions(shared))
    if task.kind != "labels":
        found.add("query_in_shared_history", _in_shared_histories(task, shared, evaluated))
    unknown = {"later_history"} if not found.dated else set()
    if task.kind != "text":
        unknown |= {"gold_in_history", "gold_in_history_normalised"}
    if task.kind == "labels":
        unknown |= {"query_in_shared", "query_in_shared_history"}
    return found.leaks(unknown)


class _Finds:
    """Ids by check, and how many were looked at."""

    def __init__(self, users: int, queries: int) -> None:
        self.users = users
        self.queries = queries
        self.dated = 0
        self._ids: dict[str, list[str]] = {name: [] for name in LEAKS}

    def add(self, name: str, ids: Iterable[str]) -> None:
        self._ids[name].extend(ids)

    def leaks(self, unknown: Set[str]) -> tuple[Leak, ...]:
        of = {"shared_users": self.users, "duplicate_users": self.users, "later_history": self.dated}

        def leak(name: str) -> Leak:
            ids = [] if name in unknown else self._ids[name]
            count = None if name in unknown else len(ids)
            return Leak(name, count, of.get(name, self.queries), tuple(ids[:_EXAMPLES]))

        return tuple(map(leak, LEAKS))


def _look_into_histories(
    found: _Finds, task: Task, evaluated: Sequence[LabelledUser], shared_questions: set[str]
) -> None:
    for entry in evaluated:
        history = entry.user.history
        sources = {_text(item, task) for item in history}
        targets = {item.target.strip() for item in history}
        plain_sources, plain_targets = set(_plain(sources)), set(_plain(targets))
        last = max((item.date for item in history), default="")
        for labelled in entry.queries:
            query, gold = labelled.query, labelled.target.strip()
            text = normalised(query.text)
            checks = {
                "query_in_history": query.text in sources,
                "query_in_history_normalised": text in plain_sources,
                "gold_in_history": gold in targets,
                "gold_in_history_normalised": normalised(gold) in plain_targets,
                "query_in_shared": text in shared_questions,
                "later_history": _is_later(last, query.date),
            }
            found.dated += bool(query.date and last)
            for name, hit in checks.items():
                if hit:
                    found.add(name, [query.id])


def normalised(text: str) -> str:
    """A text without case, punctuation, and differences in spacing or Unicode form."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _plain(texts: Iterable[str]) -> Iterator[str]:
    # Texts without a letter or digit would all be equal.
    return filter(None, map(normalised, texts))


def _shared_questions(shared: Sequence[LabelledUser]) -> set[str]:
    queries: Iterator[LabelledQuery] = (labelled for entry in shared for labelled in entry.queries)
    return set(_plain(labelled.query.text for labelled in queries))


def _in_shared_histories(
    task: Task, shared: Sequence[LabelledUser], evaluated: Sequence[LabelledUser]
) -> Iterator[str]:
    """Queries about a text of a shared history. Compared exactly, because there may be millions of them."""
    asked = {labelled.query.text for entry in evaluated for labelled in entry.queries}
    told = {text for entry in shared for item in entry.user.history if (text := _text(item, task)) in asked}
    return (labelled.query.id for entry in evaluated for labelled in entry.queries if labelled.query.text in told)


def _text(item: HistoryItem, task: Task) -> str:
    """What an item is about: without a source side, its target is the text that was asked about."""
    return item.source if task.item_source else item.target


def _is_later(item: str, query: str) -> bool:
    """Whether an item's date is surely after a query's, as far as both are known."""
    common = min(len(item), len(query))
    return common > 0 and item[:common] > query[:common]


def _twins(
    ids: Sequence[str], texts: Sequence[str | None], other_ids: Sequence[str], other_texts: Sequence[str | None]
) -> Iterator[str]:
    """Evaluated users with another id of the same history texts, as ``a = b``."""
    smallest: dict[str | None, list[str]] = defaultdict(list)
    for user_id, name in zip([*ids, *other_ids], [*texts, *other_texts], strict=True):
        # Two are enough: a user's twin is the smallest id that is not the user's own.
        smallest[name] = sorted({*smallest[name], user_id})[:2]
    for user_id, name in zip(ids, texts, strict=True):
        if name is None:
            continue
        for twin in [other for other in smallest[name] if other != user_id][:1]:
            yield f"{user_id} = {twin}"
