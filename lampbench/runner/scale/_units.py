"""What a worker is given to do: a shared stage, the users of a shard, or queries to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, overload

from lampbench.core import LabelledUser, Method, Query, User, digest
from lampbench.data import Dataset
from lampbench.runner._plan import Plan

Kind = Literal["fit", "shard", "ask"]

# Shards a worker, where there are users enough: what is left at the end, when others have nothing to do, is small.
_SHARDS_A_WORKER = 3


@dataclass(frozen=True)
class Unit:
    """One piece of a run. Doing it twice gives the same result twice.

    Attributes:
        kind: ``fit``: the shared stage. ``shard``: adapt users and answer their queries. ``ask``: answer
            queries with the states of ``states``, and keep nothing.
        plan: The run, without its data.
        data: What the unit needs of them: its users and queries, and no gold.
        name: Unique in the run: the same for the same work.
        states: User id -> id of the user whose saved state is loaded; ``shard`` adapts all others.
        answered: Query id -> output of what an earlier session answered.
        guarded: Ids of users whose isolation is checked.
        files: Content of files that are needed and that the worker may not see: path below the run
            folder -> bytes. Called when needed.
    """

    kind: Kind
    plan: Plan
    data: Dataset
    name: str
    states: Mapping[str, str] = field(default_factory=dict)
    answered: Mapping[str, str] = field(default_factory=dict)
    guarded: tuple[str, ...] = ()
    files: Callable[[], Mapping[str, bytes]] = dict

    @property
    def key(self) -> str:
        """Names the unit among those of all runs."""
        return f"{self.plan.run_id}/{self.name}"


@dataclass(frozen=True)
class Waiting:
    """A unit that can be given out. Its data is gathered only then: of a million users, few are in memory.

    Attributes:
        kind, name: The unit's.
        users: Whom it is about.
        work: About how many texts it reads; a number to compare units by.
        make: Makes it.
    """

    kind: Kind
    name: str
    users: Sequence[str]
    work: float
    make: Callable[[], Unit]


class SharedUsers(Sequence[LabelledUser]):
    """The shared split, brought to a worker when a method first looks at it.

    Args:
        fetch: Gives them.
        count: How many there are.
    """

    def __init__(self, fetch: Callable[[], Sequence[LabelledUser]], count: int) -> None:
        self._fetch = fetch
        self._count = count
        self._users: Sequence[LabelledUser] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> LabelledUser: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LabelledUser]: ...
    def __getitem__(self, index: int | slice) -> LabelledUser | Sequence[LabelledUser]:
        if self._users is None:
            self._users = self._fetch()
        return self._users[index]


def light(plan: Plan) -> Plan:
    """The plan without its data, which workers get unit by unit."""
    return replace(plan, dataset=without_data(plan.dataset), data_seconds=0.0)


def without_data(data: Dataset) -> Dataset:
    """Only what names the data."""
    return replace(data, shared=(), users=(), queries=(), golds={}, sources={}, leaks=(), notes=())


def part_of(data: Dataset, users: Iterable[User], queries: Iterable[Query], shared: Sequence[LabelledUser]) -> Dataset:
    """A unit's data: its users and queries, and no gold."""
    return replace(without_data(data), users=tuple(users), queries=tuple(queries), shared=shared)


def shards_of(
    users: Sequence[User], work: Callable[[User], float], method: type[Method], workers: int
) -> Iterator[list[User]]:
    """Users in shards of like work, those with the most first.

    A shard has no more users than a method adapts at once, and fewer where workers would go without.
    """
    size = max(1, min(method.users_at_once, -(-len(users) // (workers * _SHARDS_A_WORKER))))
    # Ids make the order one that nothing else decides.
    waiting = sorted(users, key=lambda user: (-work(user), user.id))
    for start in range(0, len(waiting), size):
        yield waiting[start : start + size]


def unit_name(kind: str, *parts: Any) -> str:
    """A name for the same work every time."""
    return f"{kind}-{digest(parts)[:16]}"
