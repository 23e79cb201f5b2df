"""What a protocol gives the runner: shared users, evaluated users, queries, and golds apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from lampbench.core import AskedUser, InputError, LabelledQuery, LabelledUser, NoConfig, Query, Task, User
from lampbench.data._licence import Licence
from lampbench.data.files import NOTHING_READ, Reading

if TYPE_CHECKING:
    from lampbench.data._freeze import Frozen
    from lampbench.data._leaks import Leak


# What is said beside every table of scores on data with a label.
SYNTHETIC = "invented users; these scores cannot be compared with scores on LaMP"

_Made = TypeVar("_Made")


class _View(Sequence[_Made]):
    """A view of each labelled user, made again at each access, so that histories that were read are not kept."""

    def __init__(self, labelled: Sequence[LabelledUser], make: Callable[[LabelledUser], _Made]) -> None:
        self._labelled = labelled
        self._make = make

    def __len__(self) -> int:
        return len(self._labelled)

    @overload
    def __getitem__(self, index: int) -> _Made: ...
    @overload
    def __getitem__(self, index: slice) -> _View[_Made]: ...
    def __getitem__(self, index: int | slice) -> _Made | _View[_Made]:
        if isinstance(index, slice):
            return _View(self._labelled[index], self._make)
        return self._make(self._labelled[index])


def _asked(entry: LabelledUser) -> AskedUser:
    """The user and the queries, without the golds."""
    return AskedUser(entry.user, tuple(labelled.query for labelled in entry.queries))


@dataclass(frozen=True)
class Dataset:
    """One task's data under one protocol. ``Dataset.of`` makes one.

    Attributes:
        shared: Users of the shared split, with labelled queries; empty if there is no such split.
        evaluated: Evaluated users with their queries, in the order of their first appearance.
        golds: Query id -> gold. Only for the scorer; the runner never hands it to a method.
        sources: File name -> SHA-256 of every file that was read.
        hash: SHA-256 over users, histories, queries and golds of both splits, and over which records were set aside or
            mended: the protocol's name.
        leaks: What the leak checks found.
        notes: What a reader of the numbers should know about how the data was read.
        label: What to call it wherever a score on it appears, such as "mini (synthetic)"; None for real data.
        reading: What reading the files came upon: records set aside, known defects mended, what was ignored.
        licence: Under which the texts are; None if that is not known, or if nobody wrote them.
    """

    shared: Sequence[LabelledUser]
    evaluated: Sequence[AskedUser]
    golds: Mapping[str, str]
    sources: Mapping[str, str]
    hash: str
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...] = ()
    label: str | None = None
    reading: Reading = NOTHING_READ
    licence: Licence | None = None

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
        reading: Reading = NOTHING_READ,
        licence: Licence | None = None,
        frozen: Frozen | None = None,
    ) -> Dataset:
        """The data of these users; the golds of evaluated users are kept separately.

        Args:
            task: The task.
            shared: Users of the shared split.
            evaluated: Evaluated users with their labelled queries.
            sources: File name -> SHA-256.
            notes: What a reader should know.
            label: What to call it, if it is not real data.
            reading: What reading the files came upon.
            licence: Under which the texts are, if that is known.
            frozen: The hash and the findings, if they are known; else they are computed here.

        Raises:
            InputError: Two evaluated queries have one id.
        """
        from lampbench.data._freeze import freeze

        known = frozen or freeze(task, shared, evaluated, reading)
        golds: dict[str, str] = {}
        for entry in evaluated:
            for labelled in entry.queries:
                if labelled.query.id in golds:
                    raise InputError(
                        f"{task.name}: the query id {labelled.query.id!r} occurs twice; every query needs its own id"
                    )
                golds[labelled.query.id] = labelled.target
        return cls(
            shared,
            _View(evaluated, _asked),
            golds,
            sources,
            known.hash,
            known.leaks,
            tuple(notes),
            label,
            reading,
            licence,
        )

    @property
    def users(self) -> list[User]:
        """The evaluated users."""
        return [asked.user for asked in self.evaluated]

    @property
    def queries(self) -> list[Query]:
        """All queries, user by user."""
        return [query for asked in self.evaluated for query in asked.queries]

    def labelled(self) -> list[LabelledUser]:
        """The evaluated users with their queries and golds: for writing files, never for methods."""
        return [
            LabelledUser(asked.user, tuple(LabelledQuery(query, self.golds[query.id]) for query in asked.queries))
            for asked in self.evaluated
        ]

    def first_users(self, count: int) -> Dataset:
        """The same data with only the first ``count`` evaluated users; ``hash`` and ``leaks`` stay as they are."""
        evaluated = self.evaluated[:count]
        golds = {query.id: self.golds[query.id] for asked in evaluated for query in asked.queries}
        return replace(self, evaluated=evaluated, golds=golds)


class Protocol(ABC):
    """Base class of protocols: which users, which queries, which golds.

    A protocol is registered under the entry point group ``lampbench.protocols``. On the command line
    it is ``NAME`` or ``NAME,KEY=VALUE``, with keys of its ``Config``.

    Attributes:
        Config: A frozen dataclass of what can be set; ``lampbench.setting`` documents a field.
        about: Its line in ``lampbench list protocols``.
        default_model: The backbone that is used if the user names none, or None if one must be named.
        recommended: Method -> field of its config -> value: settings for this data in place of published ones. They
            fill what the user leaves open. If the protocol has a ``default_model`` they are for that one: runs on
            another model take the published settings.
        licence: Under which the data is; None if that is not known, or if nobody wrote it.
        say: Gets a line for the user when something takes long.
        tolerate: The share of records that may be set aside because they cannot be read; 0 refuses the first.
    """

    Config: ClassVar[type] = NoConfig
    about: str = ""
    default_model: str | None = None
    recommended: Mapping[str, Mapping[str, Any]] = {}
    licence: Licence | None = None

    say: Callable[[str], None]
    tolerate: float = 0.0

    def __init__(self, config: Any = None) -> None:
        self.config = self.Config() if config is None else config
        self.say = lambda text: None

    @property
    def origin(self) -> str | None:
        """The name of the protocol whose data this one narrows down, or None if it has its own."""
        return None

    def canonical(self, name: str) -> str:
        """The canonical form of this protocol: ``name`` and every setting that is not the default."""
        defaults = {field.name: field.default for field in fields(self.Config)}
        values = {key: getattr(self.config, key) for key in defaults}
        return ",".join([name, *(f"{key}={value}" for key, value in values.items() if value != defaults[key])])

    @abstractmethod
    def load(self, task: Task, data: Path | None) -> Dataset:
        """Read ``task``'s data; ``data`` is what the user gave as ``--data``.

        Raises:
            InputError: The data is missing or wrong; the message names file and record.
        """
