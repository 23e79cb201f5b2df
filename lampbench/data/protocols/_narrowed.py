"""Protocols that narrow another one down: by rules over users, queries and dates, never over answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lampbench.core import InputError, MissingDataError, Task, protocols, setting
from lampbench.data._licence import Licence
from lampbench.data.protocols._parts import FileProtocol, Parts, dropped_notes
from lampbench.data.store import Selection

_BASES = "lamp-time, lamp-user, folder, oppu100 or mini"
_BASE = f"the protocol whose data this one uses: {_BASES}"
_POWERED_TASKS = ("lamp3", "lamp5", "lamp7")


@dataclass(frozen=True)
class NarrowedConfig:
    """Settings of every protocol in this file."""

    base: str = setting("lamp-time", _BASE)


class Narrowed(FileProtocol):
    """Base of the protocols in this file."""

    Config = NarrowedConfig

    @property
    def origin(self) -> str:
        """The base protocol."""
        return self._base().origin or str(self.config.base)

    @property
    def default_model(self) -> str | None:  # type: ignore[override]
        """The one of the protocol below."""
        return self._base().default_model

    @property
    def recommended(self) -> Mapping[str, Mapping[str, Any]]:  # type: ignore[override]
        """What the base protocol recommends."""
        return self._base().recommended

    @property
    def licence(self) -> Licence | None:  # type: ignore[override]
        """That of the base protocol."""
        return self._base().licence

    def _base(self) -> FileProtocol:
        kind = protocols().load(self.config.base)
        if not (isinstance(kind, type) and issubclass(kind, FileProtocol)) or issubclass(kind, Narrowed):
            raise InputError(f"base={self.config.base}: that protocol has no files of its own; take {_BASES}")
        base: FileProtocol = kind()
        base.say, base.tolerate = self.say, self.tolerate
        return base

    @abstractmethod
    def parts(self, task: Task, data: Path | None) -> Parts:
        """The users; raises InputError as ``Protocol.load`` says."""


@dataclass(frozen=True)
class RebuiltConfig(NarrowedConfig):
    """Settings of ``oppu100-rebuilt``."""

    users: int = setting(100, "how many users are evaluated")

    def __post_init__(self) -> None:
        if self.users < 1:
            raise ValueError(f"users must be at least 1, found {self.users}")


class Oppu100Rebuilt(Narrowed):
    """OPPU's choice of users, rebuilt from LaMP's own files.

    The users of train and dev are pooled; the 100 with the longest histories (of equal length: the
    smaller id first) are evaluated on all their labelled queries, everyone else is shared. A user's
    history is what all of that user's questions show, so no query can be looked up in it.
    """

    Config = RebuiltConfig
    about = "the 100 users with the longest histories of LaMP's own train and dev files; everyone else is shared"

    def parts(self, task: Task, data: Path | None) -> Parts:
        """The longest histories apart; raises InputError where there are not enough users."""
        split = self._base().pooled(task, data)
        wanted = self.config.users
        if len(split) <= wanted:
            raise InputError(
                f"{task.name} has {len(split)} users in all; expected more than the {wanted} to evaluate; "
                "fewer: oppu100-rebuilt,users=N"
            )
        order = sorted(range(len(split)), key=lambda number: (-split.lengths[number], split.ids[number]))
        chosen = set(order[:wanted])
        everyone = Selection.whole(split).windows
        evaluated = Selection(split, (window for window in everyone if window.number in chosen))
        shared = Selection(split, (window for window in everyone if window.number not in chosen))
        shortest, longest = split.lengths[order[wanted - 1]], split.lengths[order[0]]
        note = f"evaluated: the {wanted} longest histories ({shortest} to {longest} items) of {len(split):,} users"
        return Parts(evaluated, shared, (*dropped_notes({"train and dev": split}), note))


@dataclass(frozen=True)
class PoweredConfig(NarrowedConfig):
    """Settings of ``powered``."""

    queries: int = setting(1500, "how many queries there must be at least")

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ValueError(f"queries must be at least 1, found {self.queries}")


class Powered(Narrowed):
    """Enough queries to tell methods apart: all evaluated users, and held-out items where those are too few.

    Where the base has fewer than 1,500 queries, the latest m items of every evaluated user's history
    are taken out of it and asked as queries, m being the smallest number that suffices, and never
    more than half of a history. Users who are evaluated are not shared.
    """

    Config = PoweredConfig
    about = "lamp3, lamp5, lamp7 with at least 1,500 queries: all evaluated users, latest items held out where needed"

    def parts(self, task: Task, data: Path | None) -> Parts:
        """The users, with as much held out as is needed; raises InputError where that is not enough."""
        if task.name not in _POWERED_TASKS:
            raise MissingDataError(
                f"'powered' is for {', '.join(_POWERED_TASKS)}; {task.name} has enough queries: take {self.config.base}"
            )
        base = self._base().parts(task, data)
        evaluated, held_out = self._held_out(task, base.evaluated)
        note = f"the latest {held_out} history items of each user, at most half of them, are asked as queries"
        return Parts(evaluated, _others(base.shared, evaluated), (*base.notes, *([note] if held_out else [])))

    def _held_out(self, task: Task, selection: Selection) -> tuple[Selection, int]:
        asked = sum(len(entry.queries) for entry in selection)
        missing = self.config.queries - asked
        if missing <= 0:
            return selection, 0
        most = [0] * len(selection)
        if task.item_source:
            most = [_askable(task, selection, index) for index in range(len(selection))]
        if sum(most) < missing:
            reason = "at most half of each history can be held out" if task.item_source else "its history has no texts"
            raise InputError(
                f"{task.name} has {asked} queries, and {sum(most)} could be held out ({reason}); "
                f"expected {self.config.queries} or more: take {self.config.base}, or queries={asked + sum(most)}"
            )
        count = next(m for m in range(1, max(most) + 1) if sum(min(m, own) for own in most) >= missing)
        taken = [min(count, own) for own in most]
        windows = (
            replace(window, stop=window.stop - own, held_out=own)
            for window, own in zip(selection.windows, taken, strict=True)
        )
        return Selection(selection.split, windows), count


@dataclass(frozen=True)
class ColdConfig(NarrowedConfig):
    """Settings of ``cold-k``."""

    k: int | None = setting(None, "how many of the latest items a history keeps")

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ValueError(f"k must be at least 1, found {self.k}")


class Cold(Narrowed):
    """Users about whom little is known: every evaluated history is cut to its latest k items.

    Users who are evaluated are not shared.
    """

    Config = ColdConfig
    about = "evaluated histories cut to their latest k items: cold-k,k=4"

    def parts(self, task: Task, data: Path | None) -> Parts:
        """The same evaluated users and queries, with less history."""
        k = self.config.k
        if k is None:
            raise InputError("the protocol 'cold-k' needs k: --protocol cold-k,k=4")
        base = self._base().parts(task, data)
        windows = [replace(w, start=max(w.start, w.stop - k)) for w in base.evaluated.windows]
        cut = sum(new != old for new, old in zip(windows, base.evaluated.windows, strict=True))
        note = f"histories are cut to the latest {k} items: {cut} of {len(windows)} users had more"
        return Parts(
            Selection(base.evaluated.split, windows), _others(base.shared, base.evaluated), (*base.notes, note)
        )


def _askable(task: Task, selection: Selection, index: int) -> int:
    """How many of a user's latest items could be queries.

    At most half, and none at or before an item without text or valid answer.
    """
    history = selection[index].user.history
    latest = history[(len(history) + 1) // 2 :]
    bad = [n for n, item in enumerate(latest) if not (item.source.strip() and task.accepts(item.target.strip()))]
    return len(latest) - (bad[-1] + 1 if bad else 0)


def _others(shared: Selection | None, evaluated: Selection) -> Selection | None:
    """Shared users who are not evaluated."""
    if shared is None:
        return None
    people = set(evaluated.ids)
    named = zip(shared.windows, shared.ids, strict=True)
    return Selection(shared.split, (window for window, name in named if name not in people))
