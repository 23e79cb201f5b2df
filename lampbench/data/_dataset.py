"""What a protocol gives the runner: shared users, evaluated users, queries, and golds apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from lampbench.core import Query, SharedUser, Task, User, digest


@dataclass(frozen=True)
class Dataset:
    """One task's data under one protocol.

    Attributes:
        shared: Users of the shared split, with labelled queries; empty where there is no such split.
        users: Evaluated users, in file order.
        queries: Their queries, without golds, in file order.
        golds: Query id -> gold. For the scorer alone; the runner never hands it to a method.
        sources: File name -> SHA-256 of every file that was read.
        notes: What a reader of the numbers should know about how the data was read.
        label: What to call it wherever a score on it appears, such as "mini (synthetic)"; None for real data.
    """

    shared: tuple[SharedUser, ...]
    users: tuple[User, ...]
    queries: tuple[Query, ...]
    golds: Mapping[str, str]
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()
    label: str | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256 over users, histories, queries and golds of both splits: the protocol's name."""
        return digest(
            {
                "shared": [asdict(user) for user in self.shared],
                "users": [asdict(user) for user in self.users],
                "queries": [asdict(query) for query in self.queries],
                "golds": dict(self.golds),
            }
        )

    def first_users(self, count: int) -> Dataset:
        """The same data with the first ``count`` evaluated users only."""
        users = self.users[:count]
        kept = {user.id for user in users}
        queries = tuple(query for query in self.queries if query.user_id in kept)
        golds = {query.id: self.golds[query.id] for query in queries}
        return replace(self, users=users, queries=queries, golds=golds)


class Protocol(ABC):
    """Base class of protocols: which users, which queries, which golds.

    A protocol is registered under the entry point group ``lampbench.protocols`` and built with no
    arguments.

    Attributes:
        about: Its line in ``lampbench list protocols``.
        default_model: The backbone that is used where the user names none; None where one must be named.
    """

    about: str = ""
    default_model: str | None = None

    @abstractmethod
    def load(self, task: Task, data: Path | None) -> Dataset:
        """Read ``task``'s data; ``data`` is what the user gave as ``--data``.

        Raises:
            InputError: The data is missing or wrong; the message names file and record.
        """
