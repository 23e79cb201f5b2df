"""What a run still needs, as units, read off what there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from lampbench.core import Parameters, Query, User
from lampbench.runner._answer import can_swap, neighbours
from lampbench.runner._guards import Checks, guarded, together
from lampbench.runner._learn import adapts_users, has_shared_stage
from lampbench.runner._plan import Plan
from lampbench.runner._work import Work
from lampbench.runner.scale._inbox import Inbox
from lampbench.runner.scale._units import Kind, SharedUsers, Unit, Waiting, light, part_of, shards_of, unit_name

# A shared stage reads its data several times.
_SHARED_EPOCHS = 3
_SAMPLED_USERS = 32

Files = Callable[[Sequence[str]], Callable[[], Mapping[str, bytes]]]


class Missing:
    """Reads off a run's folder what is to be done next.

    Args:
        work: The run's session in this process.
        plan: The run as workers get it.
        inbox: What has arrived.
        workers: How many there are.
        shared: The shared split, for workers.
        files: Gives workers that do not see the run folder its shared state, and what is below these paths of it.
    """

    def __init__(self, work: Work, plan: Plan, inbox: Inbox, workers: int, shared: SharedUsers, files: Files) -> None:
        self._work = work
        self._data = work.dataset
        self._plan = light(plan)
        self._inbox = inbox
        self._workers = workers
        self._shared = shared
        self._files = files
        self._adapts = adapts_users(plan.method_type)

    def units(self) -> list[Waiting]:
        """What can be done now, once all that was given out before has ended; nothing: the run can be scored."""
        for stage in (self._fit, self._shards, self._swap, self._look, self._unadapted):
            units = list(stage())
            if units:
                return units
        return []

    @property
    def parameters(self) -> Parameters | None:
        """As a worker's method reported them."""
        known = [shard["parameters"] for shard in self._inbox.shards if shard["parameters"]]
        return Parameters(**known[-1]) if known else None

    @property
    def swapped(self) -> dict[str, str] | None:
        """All answers with other users' states; None where there are none to be."""
        if not (self._plan.settings.swap_test and can_swap(self._plan, self._data)):
            return None
        return self._asked("swap")

    @property
    def checks(self) -> Checks:
        """What the guards found on all workers."""
        found = together([shard["checks"] for shard in self._inbox.shards])
        if "adaptation" in found and not found["adaptation"]["passed"]:
            asked = self._asked("unadapted")
            changed = sum(output != self._inbox.answered[query] for query, output in asked.items())
            seen = found["adaptation"]["asked"] + len(asked)
            found["adaptation"] = {"passed": changed > 0, "asked": seen, "changed": changed}
        return found

    def _fit(self) -> Iterator[Waiting]:
        if has_shared_stage(self._plan.method_type) and not self._inbox.has_shared_state:
            yield self._waiting("fit", unit_name("fit"), work=self._shared_work())

    def _shards(self) -> Iterator[Waiting]:
        unseen = self._unguarded()
        waiting = [user for user in self._data.users if self._waits(user) or user.id in unseen]
        for users in self._groups(waiting):
            queries = self._queries(users)
            ids = sorted(user.id for user in users)
            answered = {q.id: self._inbox.answered[q.id] for q in queries if q.id in self._inbox.answered}
            states = {user: user for user in ids if user in self._inbox.adapted}
            yield self._waiting(
                "shard",
                unit_name("shard", ids, sorted(states), sorted(answered)),
                users,
                users,
                states,
                sum(map(self._work_of, users)),
                answered=answered,
                guarded=tuple(user for user in ids if user in unseen),
            )

    def _swap(self) -> Iterator[Waiting]:
        if self.swapped is None:
            return
        others = {user.id: other for user, other in neighbours(self._data.users)}
        for users in self._groups(self._data.users):
            states = {user.id: others[user.id].id for user in users}
            swapped = [User(user.id, others[user.id].history) for user in users]
            yield from self._asking("swap", users, swapped, states)

    def _look(self) -> Iterator[Waiting]:
        """A look at the method, where another executor did the run and left no word of its parameters."""
        if self.parameters is None:
            yield self._waiting("ask", unit_name("look"))

    def _unadapted(self) -> Iterator[Waiting]:
        """Users as if never adapted, group by group until one answer differs."""
        found = self.checks.get("adaptation")
        if found is not None and not found["passed"]:
            for users in self._groups(self._data.users):
                first = next(self._asking("unadapted", users, (), {}), None)
                if first is not None:
                    yield first
                    return

    def _asking(
        self, kind: str, users: Sequence[User], with_states: Sequence[User], states: Mapping[str, str]
    ) -> Iterator[Waiting]:
        name = unit_name(kind, sorted(user.id for user in users), sorted(states.items()))
        queries = len(self._queries(users))
        if queries and name not in self._inbox.asked:
            yield self._waiting("ask", name, users, with_states, states, queries)

    def _waiting(
        self,
        kind: Kind,
        name: str,
        asked: Sequence[User] = (),
        users: Sequence[User] = (),
        states: Mapping[str, str] | None = None,
        work: float = 0.0,
        **more: Any,
    ) -> Waiting:
        """A unit of ``users``, with the queries of ``asked``."""
        states = states or {}

        def make() -> Unit:
            folder = self._work.folder
            owned = [folder.user_state(owner).relative_to(folder.path).as_posix() for owner in states.values()]
            files = dict if kind == "fit" else self._files(owned)
            data = part_of(self._data, users, self._queries(asked), self._shared)
            return Unit(kind, self._plan, data, name, states, files=files, **more)

        return Waiting(kind, name, [user.id for user in asked], work, make)

    def _groups(self, users: Sequence[User]) -> Iterator[list[User]]:
        return shards_of(users, self._work_of, self._plan.method_type, self._workers)

    def _work_of(self, user: User) -> float:
        return (len(user.history) if self._adapts else 0) + len(self._by_user.get(user.id, ()))

    def _asked(self, kind: str) -> dict[str, str]:
        parts = [answers for name, answers in self._inbox.asked.items() if name.startswith(f"{kind}-")]
        return {query: output for answers in parts for query, output in answers.items()}

    def _waits(self, user: User) -> bool:
        if self._adapts and user.id not in self._inbox.adapted:
            return True
        return any(query.id not in self._inbox.answered for query in self._by_user.get(user.id, ()))

    def _unguarded(self) -> set[str]:
        """Users whose isolation is still to be looked at."""
        if not self._adapts:
            return set()
        seen = {user for shard in self._inbox.shards for user in shard["guarded"]}
        return {user.id for user in guarded(self._data.users) if self._by_user.get(user.id)} - seen

    @cached_property
    def _by_user(self) -> Mapping[str, Sequence[Query]]:
        by_user: dict[str, list[Query]] = {}
        for query in self._data.queries:
            by_user.setdefault(query.user_id, []).append(query)
        return by_user

    def _queries(self, users: Sequence[User]) -> list[Query]:
        return [query for user in users for query in self._by_user.get(user.id, ())]

    def _shared_work(self) -> float:
        sample = self._data.shared[:_SAMPLED_USERS]
        each = sum(len(user.queries) for user in sample) / max(1, len(sample))
        return each * len(self._data.shared) * _SHARED_EPOCHS
