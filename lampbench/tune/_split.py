"""Data for choosing settings: shared users apart, some of them asked as evaluated users are; nobody else is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lampbench.core import InputError, LabelledUser, Task, User, derive_seed, digest
from lampbench.data import Dataset, Protocol
from lampbench.data.store import Selection
from lampbench.runner import load_protocol


class HeldOut(Protocol):
    """A protocol's shared users without its evaluated ones: most stay shared, the others are held out and asked.

    It is registered nowhere, so a run on it cannot be a row of a board: its name, ``NAME,tune=PART,seed=SEED``, is one
    that ``load_protocol`` refuses, and its hash is that of its own users.

    Args:
        protocol: What to take the shared users of, as ``--protocol`` names it.
        part: The share of them that is held out.
        seed: Which these are.

    Attributes:
        base_name: The protocol whose shared users these are.
        name: What trials, and their rows, call it.
    """

    about = "shared users held out to choose settings on"

    def __init__(self, protocol: str, part: float, seed: int) -> None:
        super().__init__()
        self._base, self.base_name = load_protocol(protocol)
        self._part, self._seed = part, seed
        self.default_model = self._base.default_model
        self.recommended = self._base.recommended
        self.name = f"{self.base_name},tune={part:g},seed={seed}"

    @property
    def origin(self) -> str:
        """The protocol whose settings methods take."""
        return self._base.origin or self.base_name

    def load(self, task: Task, data: Path | None) -> Dataset:
        """The shared users, split; raises InputError as ``hold_out`` does."""
        self._base.say, self._base.tolerate = self.say, self.tolerate
        return hold_out(task, self._base.load(task, data), self._part, self._seed)


def hold_out(task: Task, dataset: Dataset, part: float, seed: int) -> Dataset:
    """A dataset of ``dataset``'s shared users alone, some of whom take the place of evaluated users.

    Left out are shared users who are evaluated as well, and those who have an evaluated user's history under another
    id. Who is held out depends on ids, ``part`` and ``seed``, and not on the order of the users.

    Args:
        task: The task.
        dataset: A protocol's data.
        part: The share of users with queries that is held out, rounded to users.
        seed: Names the choice.

    Raises:
        InputError: Nobody, or everybody, would be held out.
    """
    people = {user.id for user in dataset.users}
    histories = {_history(user) for user in dataset.users} - {None}
    free = [
        number
        for number, entry in enumerate(dataset.shared)
        if entry.user.id not in people and _history(entry.user) not in histories
    ]
    asked = [number for number in free if dataset.shared[number].queries]
    chosen = set(_drawn({number: dataset.shared[number].user.id for number in asked}, part, seed))
    kept = [number for number in free if number not in chosen]
    if not 0 < len(chosen) < len(asked):
        raise InputError(_nobody(task, dataset, len(asked), len(chosen), part))
    left_out = len(dataset.shared) - len(free)
    notes = [
        f"tuning data: {len(chosen)} of {len(free)} shared users are held out and asked; no evaluated user is here",
        *([f"tuning data: {left_out} shared users are evaluated as well, and left out"] if left_out else []),
    ]
    return Dataset.of(
        task,
        _only(dataset.shared, kept),
        _only(dataset.shared, sorted(chosen)),
        sources=dataset.sources,
        notes=[*dataset.notes, *notes],
        label=dataset.label,
        reading=dataset.reading,
        licence=dataset.licence,
    )


def _drawn(ids: dict[int, str], part: float, seed: int) -> list[int]:
    """So many of the users, by number: those whose ids come first in an order that the seed makes."""
    drawn_as = {number: derive_seed(seed, "tune", "held out", user_id) for number, user_id in ids.items()}
    return sorted(ids, key=drawn_as.__getitem__)[: round(part * len(ids))]


def _history(user: User) -> str | None:
    """Identifies what a user wrote; None if there is nothing, which identifies nobody."""
    texts = [[item.source, item.target] for item in user.history]
    return digest(texts) if texts else None


def _only(users: Sequence[LabelledUser], numbers: Sequence[int]) -> Sequence[LabelledUser]:
    if isinstance(users, Selection):
        # Remains a view that is read from disk user by user.
        return Selection(users.split, [users.windows[number] for number in numbers])
    return [users[number] for number in numbers]


def _nobody(task: Task, dataset: Dataset, asked: int, chosen: int, part: float) -> str:
    if not dataset.shared:
        return f"{task.name}: the protocol has no shared users (no train split) to choose settings on"
    if asked < 2:
        return (
            f"{task.name}: {asked} of {len(dataset.shared)} shared users have queries and are not evaluated as well; "
            "expected 2 or more: some to learn from, some to ask"
        )
    return (
        f"--held-out {part:g} holds out {chosen} of {asked} shared users; expected at least one on either side: "
        f"from {1 / asked:.2g} to {1 - 1 / asked:.2g}"
    )
