"""What reading files came upon: records set aside, defects mended, and what was ignored, each named or counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lampbench.core import InputError

# Some of so many first records can be read, unless the file is another task's, or another kind of file.
_ALL_WRONG = 100
_NAMED_IN_ERROR, _NAMED_IN_NOTES, _FIELDS_IN_NOTES = 3, 10, 5
_LONGEST, _SHORT = 300, 80


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that was set aside, or mended.

    Attributes:
        file: The file's name, as in ``Dataset.sources``.
        id: The record's id, or its place (``#3``) if it has none. For a history item, the user's id comes before it.
        what: Where it is in the file, and what is wrong with it.
    """

    file: str
    id: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Reading:
    """What was found while reading files.

    Attributes:
        records, items: How many questions, and how many history items, were read in all.
        set_aside: Questions that cannot be read. They are left out.
        items_set_aside: History items that cannot be read. They are left out of their history.
        mended: Known defects of official files that were mended.
        ignored_fields: Name -> how many records have the field, which no task knows.
        repeated_items: How often a profile lists an item again that it has already.
    """

    records: int = 0
    items: int = 0
    set_aside: tuple[Fault, ...] = ()
    items_set_aside: tuple[Fault, ...] = ()
    mended: tuple[Fault, ...] = ()
    ignored_fields: Mapping[str, int] = field(default_factory=dict)
    repeated_items: int = 0

    @classmethod
    def together(cls, readings: Iterable[Reading]) -> Reading:
        """What was found by several readings."""
        parts = list(readings)
        return cls(
            sum(part.records for part in parts),
            sum(part.items for part in parts),
            tuple(fault for part in parts for fault in part.set_aside),
            tuple(fault for part in parts for fault in part.items_set_aside),
            tuple(fault for part in parts for fault in part.mended),
            dict(sum((Counter(part.ignored_fields) for part in parts), Counter())),
            sum(part.repeated_items for part in parts),
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reading:
        """What ``dataclasses.asdict`` gave."""
        faults = {
            name: tuple(Fault(**fault) for fault in value[name]) for name in ("set_aside", "items_set_aside", "mended")
        }
        return cls(**{**value, **faults})

    @property
    def names(self) -> dict[str, list[list[str]]]:
        """What a protocol's hash holds of it: files and ids; empty if every record was read as it is."""
        faults = {"set_aside": self.set_aside, "items_set_aside": self.items_set_aside, "mended": self.mended}
        return {name: [[fault.file, fault.id] for fault in own] for name, own in faults.items() if own}

    @property
    def refused(self) -> tuple[Fault, ...]:
        """All that could not be read."""
        return (*self.set_aside, *self.items_set_aside)

    def check(self, share: float, paths: Mapping[str, str]) -> None:
        """Raise InputError if more than ``share`` of all records, or of all items, cannot be read.

        ``paths`` are the files by their names.
        """
        for kind, faults, total in self._kinds():
            allowed = most_tolerated(share, total)
            if len(faults) > allowed:
                first, *others = faults[:_NAMED_IN_ERROR]
                also = "".join(f"; {_cut(fault.what, _SHORT)}" for fault in others)
                raise InputError(
                    f"{paths.get(first.file, first.file)}: {first.what}{also}; {len(faults)} of {total} {kind} cannot "
                    f"be read, and --tolerate {share:g} allows {allowed}"
                )

    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers should know, one line each."""
        notes = []
        for kind, faults, total in self._kinds():
            if faults:
                notes.append(f"{len(faults)} of {total} {kind} cannot be read and are set aside")
                notes += _named("set aside", faults)
        notes += _named("mended, a known defect", self.mended)
        if self.ignored_fields:
            fields = sorted(self.ignored_fields.items(), key=lambda entry: (-entry[1], entry[0]))
            more = f" and {len(fields) - _FIELDS_IN_NOTES} more" if len(fields) > _FIELDS_IN_NOTES else ""
            named = ", ".join(f"{_cut(repr(name), _SHORT)} ({count:,})" for name, count in fields[:_FIELDS_IN_NOTES])
            notes.append(f"fields that the task does not know are ignored: {named}{more}")
        if self.repeated_items:
            notes.append(f"{self.repeated_items:,} history items are listed again in their profile and kept once")
        return tuple(notes)

    def _kinds(self) -> tuple[tuple[str, tuple[Fault, ...], int], ...]:
        """What records are called, those that were set aside, and how many there are in all."""
        return (
            ("questions", self.set_aside, self.records),
            ("history items", self.items_set_aside, self.items),
        )


# Of data that is in no files.
NOTHING_READ = Reading()


class ReadingLog:
    """Collects what is found while reading.

    Args:
        tolerate: The share of records that may be set aside. With 0 the first that cannot be read ends the reading.
        names: The files' names by their paths.

    Attributes:
        records, items, repeated_items: As in ``Reading``; whoever reads them counts them.
    """

    def __init__(self, tolerate: float, names: Mapping[str, str]) -> None:
        self.records = self.items = self.repeated_items = 0
        self.tolerate = tolerate
        self._names = names
        self._set_aside: list[Fault] = []
        # By file and id, so that an item in the profiles of many questions is named once.
        self._items: dict[tuple[str, str], Fault] = {}
        self._mended: list[Fault] = []
        self._ignored: Counter[str] = Counter()

    def tolerates(self, count: int, total: int) -> bool:
        """Whether so many records of ``total`` may be set aside."""
        return count <= most_tolerated(self.tolerate, total)

    def set_aside(self, error: InputError, path: Path, id: str) -> None:
        """Leave out a question for ``error``, which names the file; raises it if none is tolerated."""
        self._set_aside.append(self._fault(error, path, id))
        if len(self._set_aside) == self.records == _ALL_WRONG and self.tolerate < 1:
            self.finish().check(self.tolerate, {name: path for path, name in self._names.items()})

    def item_aside(self, error: InputError, path: Path, id: str) -> None:
        """Leave out a history item, likewise."""
        fault = self._fault(error, path, id)
        self._items.setdefault((fault.file, fault.id), fault)

    def mend(self, path: Path, id: str, what: str) -> None:
        """Name a record that was mended."""
        self._mended.append(Fault(self._name(path), id, what))

    def ignore(self, fields: Iterable[str], records: int = 1) -> None:
        """Count fields that so many records have, and no task knows."""
        for name in fields:
            self._ignored[name] += records

    def finish(self) -> Reading:
        """All of it."""
        return Reading(
            self.records,
            self.items,
            tuple(self._set_aside),
            tuple(self._items.values()),
            tuple(self._mended),
            dict(self._ignored),
            self.repeated_items,
        )

    def _fault(self, error: InputError, path: Path, id: str) -> Fault:
        if not self.tolerate:
            raise error
        # Rows do not contain the folders of a machine.
        what = str(error).removeprefix(f"{path}: ")
        for other, name in self._names.items():
            what = what.replace(other, name)
        return Fault(self._name(path), id, _cut(what, _LONGEST))

    def _name(self, path: Path) -> str:
        return self._names.get(str(path), path.name)


def most_tolerated(share: float, total: int) -> int:
    """How many records of ``total`` a share is."""
    # 0.29 of 100 is a little less than 29.
    return int(share * total + 1e-9)


def _named(what: str, faults: tuple[Fault, ...]) -> Iterator[str]:
    for fault in faults[:_NAMED_IN_NOTES]:
        yield f"{what}: {fault}"
    if len(faults) > _NAMED_IN_NOTES:
        yield f"{what}: {len(faults) - _NAMED_IN_NOTES} more, all of which are named in row.json"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
