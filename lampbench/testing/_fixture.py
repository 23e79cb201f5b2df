"""Three users of the mini suite and four queries: what a promise is tried on in about a second."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lampbench.core import HistoryItem, LabelledQuery, LabelledUser, Query, Task, User
from lampbench.data import Dataset

# Places of users in mini's evaluated split, and which of their queries are asked: chosen so that what the
# built-in methods learn of so few items changes most of these answers.
_Choice = Sequence[tuple[int, Sequence[int]]]
_USERS: Mapping[str, _Choice] = {
    "lamp2m": ((4, (0, 1)), (9, (0,)), (11, (1,))),
    "lamp2n": ((41, (0, 2)), (47, (0,)), (12, (5,))),
    "lamp3": ((4, (1, 3)), (11, (0,)), (8, (0,))),
    "lamp4": ((1, (0, 1)), (5, (0,)), (6, (0,))),
    "lamp5": ((0, (0, 1)), (2, (0,)), (8, (0,))),
    "lamp7": ((0, (0, 1)), (5, (0,)), (11, (0,))),
}
# The user's latest: longest first, as the runner adapts, and no two of one length.
_ITEMS = (4, 3, 2)
_NAMES = ("A", "B", "C")
_LONGER = 6
_SHARED_USERS, _SHARED_ITEMS, _SHARED_QUERIES = 2, 4, 3

TASKS = tuple(_USERS)


@dataclass(frozen=True)
class Fixture:
    """What a method is checked with.

    Attributes:
        data: The data of a run: three evaluated users, two shared ones. Its golds are the canaries.
        canaries: Strings that nobody can guess, in the place of golds.
        longer: The history of somebody else, longer than those of two users together, and with one target that they
            hardly have: whatever is learned of all users together, such as their most frequent label, changes with it.
        stranger: A query of a user who is never adapted.
    """

    data: Dataset
    canaries: frozenset[str]
    longer: Sequence[HistoryItem]
    stranger: Query

    @property
    def users(self) -> list[User]:
        """The evaluated users, longest history first."""
        return list(self.data.users)

    @property
    def queries(self) -> list[Query]:
        """Their queries."""
        return list(self.data.queries)


def fixture(task: Task, mini: Dataset) -> Fixture:
    """The fixture of ``task``, taken from mini's data of it."""
    evaluated = [
        _evaluated(task, f"{task.name}-{name}", _latest(mini.users[place], items), mini.queries, asked)
        for name, (place, asked), items in zip(_NAMES, _USERS[task.name], _ITEMS, strict=True)
    ]
    shared = [
        LabelledUser(_latest(entry.user, _SHARED_ITEMS), entry.queries[:_SHARED_QUERIES])
        for entry in mini.shared[:_SHARED_USERS]
    ]
    data = Dataset.of(task, shared, evaluated, sources={}, label=mini.label)
    taken = {place for place, _ in _USERS[task.name]}
    other = next(user for place, user in enumerate(mini.users) if place not in taken)
    return Fixture(
        data=data,
        canaries=frozenset(data.golds.values()),
        longer=_alike(_latest(other, _LONGER).history, _rare_target(task, data)),
        stranger=replace(
            own_queries(mini.queries, other)[0], id=f"{task.name}-stranger-0", user_id=f"{task.name}-stranger"
        ),
    )


def own_queries(queries: Sequence[Query], user: User) -> list[Query]:
    """Those of one user."""
    return [query for query in queries if query.user_id == user.id]


def _latest(user: User, items: int) -> User:
    return User(user.id, tuple(user.history[-items:]))


def _alike(history: Sequence[HistoryItem], target: str | None) -> Sequence[HistoryItem]:
    """The items with one target; by default, that of the first."""
    return tuple(replace(item, target=target or history[0].target) for item in history)


def _rare_target(task: Task, data: Dataset) -> str | None:
    """The label that the evaluated users have least often; None if the task has no labels."""
    known = Counter(item.target for user in data.users for item in user.history)
    return min(task.labels, key=lambda label: known[label], default=None)


def _evaluated(task: Task, name: str, user: User, queries: Sequence[Query], asked: Sequence[int]) -> LabelledUser:
    """A user under another name, so that no gold can be looked up in mini's data."""
    own = own_queries(queries, user)
    labelled = (
        LabelledQuery(replace(own[number], id=f"{name}-{number}", user_id=name), _canary(task)) for number in asked
    )
    return LabelledUser(User(name, user.history), tuple(labelled))


def _canary(task: Task) -> str:
    # A gold of ratings must read as a number.
    return f"3.{secrets.randbelow(10**12):012d}" if task.kind == "rating" else f"gold {secrets.token_hex(8)}"
