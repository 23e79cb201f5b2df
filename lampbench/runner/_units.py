"""A run as a list of units: the shared stage, shards of users who are adapted and answered, queries to ask again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from lampbench.core import AskedUser, LabelledUser, Method, Parameters, Prediction, User, digest
from lampbench.runner._checks import Checks, guarded, is_small, joint_users, together
from lampbench.runner._folder import StateKind
from lampbench.runner._plan import Plan
from lampbench.runner._record import RunRecord

UnitKind = Literal["fit", "shard", "ask"]

# Shards per worker, if there are enough users, so that little is left when other workers have nothing to do.
_SHARDS_PER_WORKER = 3
# A shared stage reads its data several times; and how many users are looked at to say how large it is.
_SHARED_EPOCHS, _SAMPLED_USERS = 3, 32


@dataclass(frozen=True)
class Unit:
    """One piece of a run. Doing it twice gives the same result twice.

    Attributes:
        kind: ``fit``: the shared stage. ``shard``: adapt users and answer their queries. ``ask``: answer
            queries with the states of ``states``, and keep nothing.
        plan: The run, without its data.
        name: Unique in the run: the same for the same work.
        users: Users and their queries; no gold is in them.
        shared: The shared users.
        joint: Evaluated users whose histories the shared stage reads, for joint training.
        states: User id -> id of the user whose saved state is loaded; ``shard`` adapts all others.
        answered: Ids of queries that have an answer already.
        guarded: Ids of users whose isolation is checked.
        small: Whether the run has so few users that its checks ask less.
    """

    kind: UnitKind
    plan: Plan
    name: str
    users: Sequence[AskedUser]
    shared: Sequence[LabelledUser]
    joint: Sequence[User] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()
    guarded: frozenset[str] = frozenset()
    small: bool = False


class Sink(Protocol):
    """Where a unit's results go, as they come."""

    def keep(self, kind: StateKind, written: Path, user_id: str = "") -> None:
        """Take a folder that holds a state."""

    def log(self, event: dict[str, Any]) -> None:
        """Take what something cost, or what checks found."""

    def answer(self, predictions: Sequence[Prediction]) -> None:
        """Take answers to be kept."""

    def asked(self, answers: Mapping[str, str]) -> None:
        """Take the answers, by query, of a unit that only asks."""

    def move(self, share: float) -> None:
        """The share of the unit that is done."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def message(self, text: str) -> None:
        """Text for the run's log."""


@dataclass(frozen=True)
class Waiting:
    """A unit that can be given out. Its data is gathered only then: of a million users, few are in memory.

    Attributes:
        kind, name: The unit's.
        users: Ids of its users.
        work: About how many texts it reads; a number to compare units by.
        make: Makes it, of what is still to be done of it then.
    """

    kind: UnitKind
    name: str
    users: Sequence[str]
    work: float
    make: Callable[[], Unit]


class _Known(NamedTuple):
    """What is known of every evaluated user without reading a history."""

    id: str
    items: int
    queries: tuple[str, ...]


class Missing:
    """Finds in a run's record what is to be done next.

    Args:
        plan: The run.
        record: What has been done.
        workers: How many share the work.
        asked: Answers of units that only ask, by unit.
    """

    def __init__(self, plan: Plan, record: RunRecord, workers: int, asked: Mapping[str, Mapping[str, str]]) -> None:
        self._plan = plan
        self._data = plan.dataset
        self._users = [
            _Known(asked.user.id, len(asked.user.history), tuple(query.id for query in asked.queries))
            for asked in plan.dataset.evaluated
        ]
        self._record = record
        self._workers = workers
        self._asked = asked
        self._adapts = adapts_users(plan.method_type)
        fits = has_shared_stage(plan) and not record.has_shared_state
        # The kinds of unit that this run is about to go through, in order.
        kinds: dict[UnitKind, bool] = {"fit": fits, "shard": True, "ask": self._swaps}
        self.stages = [kind for kind, is_due in kinds.items() if is_due]
        self._light = replace(plan, dataset=replace(plan.dataset, shared=(), evaluated=(), golds={}))

    def units(self) -> list[Waiting]:
        """What can be done now, once all that was given out before has ended; empty: the run can be scored."""
        for stage in (self._fit, self._shards, self._swap, self._look):
            units = list(stage())
            if units:
                return units
        return []

    @property
    def parameters(self) -> Parameters | None:
        """As a method reported them; None if no unit has said so yet."""
        known = [shard["parameters"] for shard in self._record.shards if shard["parameters"]]
        return Parameters(**known[-1]) if known else None

    @property
    def swapped(self) -> dict[str, str] | None:
        """All answers with other users' states; None if nothing is to be swapped."""
        return self._answers("swap") if self._swaps else None

    @property
    def _swaps(self) -> bool:
        """Whether all users are asked again with another user's state."""
        return self._plan.settings.swap_test and self._adapts and sum(user.items > 0 for user in self._users) > 1

    @property
    def checks(self) -> Checks:
        """What the checks found in all units."""
        return together(shard["checks"] for shard in self._record.shards)

    def _fit(self) -> Iterator[Waiting]:
        if has_shared_stage(self._plan) and not self._record.has_shared_state:
            sample = self._data.shared[:_SAMPLED_USERS]
            each = sum(len(user.queries) for user in sample) / max(1, len(sample))
            joint = sum(user.items for user in self._users) if self._plan.joint else 0
            work = (each * len(self._data.shared) + joint) * _SHARED_EPOCHS
            yield Waiting("fit", "fit", (), work, lambda: self._unit("fit", "fit", (), joint=self._joint()))

    def _joint(self) -> Sequence[User]:
        """The users that joint training reads, whole: golds cannot be reached from them."""
        return joint_users(self._data) if self._plan.joint else ()

    def _shards(self) -> Iterator[Waiting]:
        answered, unseen = self._record.predictions(), self._unguarded()
        small = is_small(len(self._users))

        def waits(user: _Known) -> bool:
            # Users without a history are not adapted.
            if user.id in unseen or (self._adapts and user.items and user.id not in self._record.adapted):
                return True
            return any(query not in answered for query in user.queries)

        def make(name: str, places: Sequence[int]) -> Unit:
            users = [self._data.evaluated[place] for place in places]
            ids = {asked.user.id for asked in users}
            done = frozenset(query.id for asked in users for query in asked.queries if query.id in answered)
            states = {user: user for user in sorted(ids & self._record.adapted)}
            return self._unit(
                "shard",
                name,
                users,
                states=states,
                answered=done,
                guarded=frozenset(ids & self._unguarded()),
                small=small,
            )

        waiting = [place for place, user in enumerate(self._users) if waits(user)]
        for places in self._shards_of(waiting):
            yield self._waiting("shard", "shard", places, make)

    def _swap(self) -> Iterator[Waiting]:
        if self.swapped is None:
            return

        def make(name: str, places: Sequence[int]) -> Unit:
            users, states = [], {}
            for place in places:
                asked = self._data.evaluated[place]
                other = self._data.evaluated[self._next(place)].user
                users.append(AskedUser(User(asked.user.id, other.history), asked.queries))
                states[asked.user.id] = other.id
            return self._unit("ask", name, users, states=states)

        yield from self._asking("swap", make)

    def _next(self, place: int) -> int:
        """The place of the next user who has a history, and so a state."""
        count = len(self._users)
        return next(other % count for other in range(place + 1, place + count) if self._users[other % count].items)

    def _look(self) -> Iterator[Waiting]:
        """A unit that only counts parameters, if an earlier release did the run and did not record them."""
        if self.parameters is None:
            yield Waiting("ask", "look", (), 0.0, lambda: self._unit("ask", "look", ()))

    def _asking(self, what: str, make: Callable[[str, Sequence[int]], Unit]) -> Iterator[Waiting]:
        """Units that ask all users again, except those whose answers are there."""
        asked = [place for place, user in enumerate(self._users) if user.queries]
        for places in self._shards_of(asked):
            unit = self._waiting("ask", what, places, make)
            if unit.name not in self._asked:
                yield unit

    def _waiting(
        self, kind: UnitKind, what: str, places: Sequence[int], make: Callable[[str, Sequence[int]], Unit]
    ) -> Waiting:
        users = [self._users[place].id for place in places]
        name = f"{what}-{digest(sorted(users))[:16]}"
        return Waiting(kind, name, users, sum(map(self._work, places)), lambda: make(name, places))

    def _unit(self, kind: UnitKind, name: str, users: Sequence[AskedUser], **more: Any) -> Unit:
        shared = self._data.shared if has_shared_stage(self._plan) else ()
        return Unit(kind, self._light, name, tuple(users), shared, **more)

    def _shards_of(self, places: Sequence[int]) -> Iterator[list[int]]:
        at_once = self._plan.method_type.users_at_once
        return shards_of(places, self._work, lambda place: self._users[place].id, at_once, self._workers)

    def _work(self, place: int) -> float:
        user = self._users[place]
        return (user.items if self._adapts else 0) + len(user.queries)

    def _answers(self, what: str) -> dict[str, str]:
        parts = [answers for name, answers in self._asked.items() if name.startswith(f"{what}-")]
        return {query: output for answers in parts for query, output in answers.items()}

    def _unguarded(self) -> set[str]:
        """Ids of users whose isolation must still be checked."""
        if not self._adapts:
            return set()
        seen = {user for shard in self._record.shards for user in shard["guarded"]}
        return {user.id for user in guarded([user for user in self._users if user.items]) if user.queries} - seen


def has_shared_stage(plan: Plan) -> bool:
    """Whether the run's method learns anything that all users share."""
    return plan.joint or plan.method_type.fit_shared is not Method.fit_shared


def adapts_users(method: type[Method]) -> bool:
    """Whether the method learns anything from a user's history."""
    return method.adapt is not Method.adapt


def shards_of(
    places: Sequence[int], work: Callable[[int], float], name: Callable[[int], str], at_once: int, workers: int
) -> Iterator[list[int]]:
    """Users, by place, in shards of like work, those with the most first.

    A shard has no more users than a method adapts at once, and fewer if several workers would go without.
    """
    fair = -(-len(places) // (workers * _SHARDS_PER_WORKER)) if workers > 1 else len(places)
    size = max(1, min(at_once, fair))
    # Names break ties, so that the order depends on nothing else.
    waiting = sorted(places, key=lambda place: (-work(place), name(place)))
    for start in range(0, len(waiting), size):
        yield waiting[start : start + size]
