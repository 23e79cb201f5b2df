"""Isolation, checked in every run: what a method does to a few users, and to some who do not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lampbench.core import HistoryItem, Method, Query, User, digest
from lampbench.data import Dataset

# Users of a run whose answers are looked at, and queries of each.
_USERS, _QUERIES_EACH = 4, 1

Ask = Callable[[Sequence[Query]], Sequence[str]]
Answers = dict[str, str]
Checks = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Round:
    """Answers of the sample, and to the same questions of users who do not exist."""

    own: Answers
    strangers: Answers


class Guards:
    """The isolation checks of one session. Only for methods that adapt.

    Every round asks the same queries in one batch, so that rounding is the same in all of them.

    Args:
        method: The method.
        dataset: The run's data, or that of a part of its users.
        users: Whose answers are looked at.
        ask: ``predict``, its answers checked for shape.
    """

    def __init__(self, method: Method, dataset: Dataset, users: Sequence[User], ask: Ask) -> None:
        self._method = method
        self._ask = ask
        self._users = {user.id: user for user in users}
        self._sample = [query for user in users for query in _own(dataset.queries, user)[:_QUERIES_EACH]]
        # Ids that no data has: made from all of them.
        stranger = f"stranger-{digest([user.id for user in dataset.users])[:16]}"
        self._strangers = [replace(query, id=f"{stranger}-{query.id}", user_id=stranger) for query in self._sample]
        self._before = self._round()

    def after(
        self, reload: Callable[[User], None], rest: Iterable[Sequence[Query]], known: Mapping[str, str]
    ) -> Checks:
        """The checks, once all users are adapted; afterwards users may have been forgotten.

        Args:
            reload: Restores a user's saved state.
            rest: All queries, in chunks; asked of users made to forget until one answer differs.
            known: The run's answers, by query.
        """
        adapted = self._round()
        for user_id in self._users:
            self._method.forget(user_id)
        forgotten = self._round()
        for user in self._users.values():
            reload(user)
        reloaded = self._round()
        return {
            "fresh": _same(self._before.strangers, adapted.strangers, forgotten.strangers),
            "forget": _same(self._before.own, forgotten.own),
            "reload": _same(adapted.own, reloaded.own),
            "adaptation": self._adaptation(adapted.own, rest, known),
        }

    def _adaptation(self, adapted: Answers, rest: Iterable[Sequence[Query]], known: Mapping[str, str]) -> Any:
        """Whether adapting changes any answer at all."""
        changed = sum(answer != self._before.own[query] for query, answer in adapted.items())
        asked = len(adapted)
        if not changed:
            for queries in rest:
                for user_id in {query.user_id for query in queries}:
                    self._method.forget(user_id)
                unadapted = zip(queries, self._ask(queries), strict=True)
                changed = sum(answer != known[query.id] for query, answer in unadapted)
                asked += len(queries)
                if changed:
                    break
        return {"passed": changed > 0, "asked": asked, "changed": changed}

    def _round(self) -> _Round:
        answers = self._ask([*self._sample, *self._strangers])
        half = len(self._sample)
        return _Round(_by_id(self._sample, answers[:half]), _by_id(self._strangers, answers[half:]))


def guarded(users: Sequence[User]) -> list[User]:
    """The users of a run whose answers are looked at: some, evenly from the first to the last."""
    last = len(users) - 1
    places = sorted({round(i * last / max(1, _USERS - 1)) for i in range(_USERS)})
    return [users[place] for place in places]


def together(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> Checks:
    """What guards found in parts of a run's users, as one finding of each check."""
    found: Checks = {}
    for part in parts:
        for name, check in part.items():
            known = found.get(name)
            found[name] = dict(check) if known is None else _both(name, known, check)
    return found


def _both(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    counts = {key: first[key] + value for key, value in second.items() if key in first and type(value) is int}
    # One answer that adapting changed is enough; every other promise is kept only where all parts keep it.
    both = any if name == "adaptation" else all
    return {**first, **second, **counts, "passed": both((first["passed"], second["passed"]))}


def history_digest(user: User) -> str:
    """Names exactly what a user is adapted on."""
    return digest([user.id, [_fields(item) for item in user.history]])[:16]


def _fields(item: HistoryItem) -> list[str]:
    return [item.id, item.source, item.target, item.date]


def _same(first: Answers, *others: Answers) -> dict[str, Any]:
    different = sum(answer != other[query] for other in others for query, answer in first.items())
    return {"passed": different == 0, "asked": len(first), "different": different}


def _by_id(queries: Sequence[Query], answers: Sequence[str]) -> Answers:
    return dict(zip([query.id for query in queries], answers, strict=True))


def _own(queries: Sequence[Query], user: User) -> list[Query]:
    return [query for query in queries if query.user_id == user.id]
