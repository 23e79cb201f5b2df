"""What a protocol gives the runner: shared users, evaluated users, queries, and golds apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lampbench.core import InputError, LabelledQuery, LabelledUser, NoConfig, Query, Task, User

if TYPE_CHECKING:
    from lampbench.data._freeze import Frozen
    from lampbench.data._leaks import Leak


@dataclass(frozen=True)
class Dataset:
    """One task's data under one protocol. ``Dataset.of`` makes one.

    Attributes:
        shared: Users of the shared split, with labelled queries; empty where there is no such split.
        users: Evaluated users, in order of their first appearance.
        queries: Their queries, without golds, user by user.
        golds: Query id -> gold. For the scorer alone; the runner never hands it to a method.
        sources: File name -> SHA-256 of every file that was read.
        hash: SHA-256 over users, histories, queries and golds of both splits: the protocol's name.
        leaks: What the leak checks found.
        notes: What a reader of the numbers should know about how the data was read.
        label: What to call it wherever a score on it appears, such as "mini (synthetic)"; None for real data.
    """

    shared: Sequence[LabelledUser]
    users: Sequence[User]
    queries: tuple[Query, ...]
    golds: Mapping[str, str]
    sources: Mapping[str, str]
    hash: str
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...] = ()
    label: str | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        shared: Sequence[LabelledUser],
        evaluated: Sequence[LabelledUser],
        *,
        sources: Mapping[str, str],
        notes: Sequence[str] = (),
        label: str | None = None,
        frozen: Frozen | None = None,
    ) -> Dataset:
        """The data of these users; of those evaluated, golds go apart.

        Args:
            task: The task.
            shared: Users of the shared split.
            evaluated: Evaluated users with their labelled queries.
            sources: File name -> SHA-256.
            notes: What a reader should know.
            label: What to call it, where it is not real data.
            frozen: The hash and the findings, where they are known; else they are computed here.

        Raises:
            InputError: Two evaluated queries have one id.
        """
        from lampbench.data._freeze import freeze
        from lampbench.data.store import EvaluatedUsers

        known = frozen or freeze(task, shared, evaluated)
        labelled = [query for entry in evaluated for query in entry.queries]
        queries = tuple(entry.query for entry in labelled)
        golds = {entry.query.id: entry.target for entry in labelled}
        if len(golds) < len(labelled):
            twice = next(name for name, count in Counter(entry.query.id for entry in labelled).items() if count > 1)
            raise InputError(f"{task.name}: the query id {twice!r} occurs twice; every query needs an id of its own")
        users = EvaluatedUsers(evaluated)
        return cls(shared, users, queries, golds, sources, known.hash, known.leaks, tuple(notes), label)

    def labelled(self) -> list[LabelledUser]:
        """The evaluated users with their queries and golds: for writing files, never for methods."""
        own: dict[str, list[LabelledQuery]] = {user.id: [] for user in self.users}
        for query in self.queries:
            own[query.user_id].append(LabelledQuery(query, self.golds[query.id]))
        return [LabelledUser(user, tuple(own[user.id])) for user in self.users]

    def first_users(self, count: int) -> Dataset:
        """The same data with the first ``count`` evaluated users only; ``hash`` and ``leaks`` stay the whole's."""
        users = self.users[:count]
        kept = {user.id for user in users}
        queries = tuple(query for query in self.queries if query.user_id in kept)
        golds = {query.id: self.golds[query.id] for query in queries}
        return replace(self, users=users, queries=queries, golds=golds)


class Protocol(ABC):
    """Base class of protocols: which users, which queries, which golds.

    A protocol is registered under the entry point group ``lampbench.protocols``. On the command line
    it is ``NAME`` or ``NAME,KEY=VALUE``, with keys of its ``Config``.

    Attributes:
        Config: A frozen dataclass of what can be set; ``lampbench.setting`` documents a field.
        about: Its line in ``lampbench list protocols``.
        default_model: The backbone that is used if the user names none, or None if one must be named.
        recommended: Method -> field of its config -> value: settings for this data in place of published ones. They
            fill what the user leaves open.
        say: Gets a line for the user when something takes long.
    """

    Config: ClassVar[type] = NoConfig
    about: str = ""
    default_model: str | None = None
    recommended: Mapping[str, Mapping[str, Any]] = {}

    say: Callable[[str], None]

    def __init__(self, config: Any = None) -> None:
        self.config = self.Config() if config is None else config
        self.say = lambda text: None

    @property
    def origin(self) -> str | None:
        """The name of the protocol whose data this one narrows down; None where it has its own."""
        return None

    def canonical(self, name: str) -> str:
        """The one way to write this protocol: ``name`` and every setting that is not the default."""
        defaults = {field.name: field.default for field in fields(self.Config)}
        values = {key: getattr(self.config, key) for key in defaults}
        return ",".join([name, *(f"{key}={value}" for key, value in values.items() if value != defaults[key])])

    @abstractmethod
    def load(self, task: Task, data: Path | None) -> Dataset:
        """Read ``task``'s data; ``data`` is what the user gave as ``--data``.

        Raises:
            InputError: The data is missing or wrong; the message names file and record.
        """
