"""Isolation, checked in every run: what a method does to a few users, and to some who do not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lampbench.core import AskedUser, HistoryItem, LampBenchError, Method, Query, User, digest
from lampbench.data import Dataset
from lampbench.runner._reach import reachable

# Users of a run whose answers are looked at, and queries of each.
_USERS, _QUERIES_EACH = 4, 1
# Users from whose data a way to the golds is looked for.
_LOOKED_AT = 8

_Any = TypeVar("_Any")
Answers = dict[str, str]
Checks = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Round:
    """Answers of the sample, and to the same questions of users who do not exist."""

    own: Answers
    strangers: Answers


class Guards:
    """The isolation checks of one unit of a method that adapts; created before anyone is adapted.

    Every round asks the same queries in one batch, so that rounding is the same in all of them.

    Args:
        method: The method.
        users: Whose answers are looked at.
        everyone: The unit's users: no id made up here is one of theirs.
    """

    def __init__(self, method: Method, users: Sequence[AskedUser], everyone: Sequence[AskedUser]) -> None:
        self._method = method
        self._users = [asked.user for asked in users]
        self._sample = [query for asked in users for query in asked.queries[:_QUERIES_EACH]]
        stranger = f"stranger-{digest([asked.user.id for asked in everyone])[:16]}"
        self._strangers = [replace(query, id=f"{stranger}-{query.id}", user_id=stranger) for query in self._sample]
        self._before = self._round()

    def after(self, reload: Callable[[User], None]) -> Checks:
        """The checks, once all users are adapted; afterwards these users may have been forgotten.

        Args:
            reload: Restores a user's saved state.
        """
        adapted = self._round()
        for user in self._users:
            self._method.forget(user.id)
        forgotten = self._round()
        for user in self._users:
            reload(user)
        reloaded = self._round()
        changed = sum(answer != self._before.own[query] for query, answer in adapted.own.items())
        return {
            "fresh": _same(self._before.strangers, adapted.strangers, forgotten.strangers),
            "forget": _same(self._before.own, forgotten.own),
            "reload": _same(adapted.own, reloaded.own),
            "adaptation": {"passed": changed > 0, "asked": len(adapted.own), "changed": changed},
        }

    def _round(self) -> _Round:
        answers = answers_of(self._method, [*self._sample, *self._strangers])
        half = len(self._sample)
        return _Round(_by_id(self._sample, answers[:half]), _by_id(self._strangers, answers[half:]))


def answers_of(method: Method, queries: Sequence[Query]) -> Sequence[str]:
    """What ``predict`` returns; raises LampBenchError unless it is one string per query."""
    outputs = method.predict(queries)
    whole = isinstance(outputs, Sequence) and not isinstance(outputs, (str, bytes))
    if not whole or len(outputs) != len(queries):
        found = f"{len(outputs)} answers" if whole else f"a {type(outputs).__name__}"
        raise LampBenchError(f"predict returned {found} for {len(queries)} queries; expected one string per query")
    for query, output in zip(queries, outputs, strict=True):
        if not isinstance(output, str):
            raise LampBenchError(f"predict returned {output!r} for query {query.id!r}; expected a string")
    return outputs


def guarded(users: Sequence[_Any]) -> list[_Any]:
    """The users of a run whose answers are looked at: some, evenly from the first to the last."""
    last = len(users) - 1
    places = sorted({round(i * last / max(1, _USERS - 1)) for i in range(_USERS)})
    return [users[place] for place in places]


def together(parts: Iterable[Mapping[str, Mapping[str, Any]]]) -> Checks:
    """What guards found in several units, as one finding per check."""
    found: Checks = {}
    for part in parts:
        for name, check in part.items():
            known = found.get(name)
            found[name] = dict(check) if known is None else _both(name, known, check)
    return found


def data_checks(data: Dataset, adapted: Iterable[Mapping[str, Any]] | None) -> Checks:
    """What can be checked without the method.

    Args:
        data: The run's data.
        adapted: The journal's ``adapt`` events; None for a method that adapts nobody.
    """
    looked_at = data.evaluated[:_LOOKED_AT]
    handed = [part for asked in looked_at for part in (asked.user, *asked.queries)]
    way = reachable(handed, lambda item: item is data.golds or isinstance(item, Dataset))
    checks: Checks = {"golds": {"passed": way is None, "way": way}}
    if adapted is not None:
        made = {user: own for event in adapted for user, own in event.get("data", {}).items()}
        different = sum(made.get(asked.user.id) != history_digest(asked.user) for asked in data.evaluated)
        checks["training_data"] = {"passed": different == 0, "users": len(data.evaluated), "different": different}
    return checks


def history_digest(user: User) -> str:
    """Names exactly what a user is adapted on."""
    return digest([user.id, [_fields(item) for item in user.history]])[:16]


def _fields(item: HistoryItem) -> list[str]:
    return [item.id, item.source, item.target, item.date]


def _both(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    counts = {key: first[key] + value for key, value in second.items() if key in first and type(value) is int}
    # One answer that adapting changed is enough; every other promise is kept only if all parts keep it.
    both = any if name == "adaptation" else all
    return {**first, **second, **counts, "passed": both((first["passed"], second["passed"]))}


def _same(first: Answers, *others: Answers) -> dict[str, Any]:
    different = sum(answer != other[query] for other in others for query, answer in first.items())
    return {"passed": different == 0, "asked": len(first), "different": different}


def _by_id(queries: Sequence[Query], answers: Sequence[str]) -> Answers:
    return dict(zip([query.id for query in queries], answers, strict=True))
