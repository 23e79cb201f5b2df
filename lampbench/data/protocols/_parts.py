"""Protocols over files: which users of which splits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from lampbench.core import InputError, Task
from lampbench.data._dataset import Dataset, Protocol
from lampbench.data._freeze import freeze, frozen
from lampbench.data.files import Reading
from lampbench.data.store import Selection, Split


@dataclass(frozen=True)
class Parts:
    """What a protocol over files is made of, before it is named by its hash.

    Attributes:
        evaluated: The evaluated users.
        shared: The shared users, or None if there is no such split.
        notes: What a reader of the numbers should know.
    """

    evaluated: Selection
    shared: Selection | None
    notes: tuple[str, ...] = ()

    @property
    def selections(self) -> list[Selection]:
        """The splits that exist."""
        return [self.evaluated, *([self.shared] if self.shared is not None else [])]

    @property
    def sources(self) -> Mapping[str, str]:
        """Name -> SHA-256 of every file that was read."""
        return {name: sha256 for selection in self.selections for name, sha256 in selection.split.facts.sources.items()}

    @property
    def reading(self) -> Reading:
        """What was found while reading the files."""
        splits = {id(selection.split): selection.split for selection in self.selections}
        return Reading.together(split.facts.reading for split in splits.values())

    @property
    def label(self) -> str | None:
        """The data's own label."""
        return next((s.split.facts.label for s in self.selections if s.split.facts.label), None)


class FileProtocol(Protocol):
    """Base of protocols that read files, and of those that narrow such a protocol down."""

    @abstractmethod
    def parts(self, task: Task, data: Path | None) -> Parts:
        """The users; raises InputError as ``Protocol.load`` says."""

    def pooled(self, task: Task, data: Path | None) -> Split:
        """The users of all labelled splits together; raises InputError if there is only one split."""
        raise InputError(
            f"{type(self).about!r} has no train and dev files to pool; take lamp-time, lamp-user or folder"
        )

    def load(self, task: Task, data: Path | None) -> Dataset:
        """Open the users; hash and check them, once for data in the cache."""
        parts = self.parts(task, data)
        shared = parts.shared if parts.shared is not None else ()
        if all(selection.split.key for selection in parts.selections):
            # Named by the users themselves, so that a changed rule never reads an old finding.
            key = [[selection.split.key, list(map(astuple, selection.windows))] for selection in parts.selections]
            known = frozen(key, task, shared, parts.evaluated, parts.reading, self.say)
        else:
            known = freeze(task, shared, parts.evaluated, parts.reading)
        return Dataset.of(
            task,
            shared,
            parts.evaluated,
            sources=parts.sources,
            notes=(*parts.notes, *_empty_notes(parts.evaluated), *parts.reading.notes()),
            label=parts.label,
            reading=parts.reading,
            licence=self.licence,
            frozen=known,
        )


def dropped_notes(splits: Mapping[str, Split]) -> tuple[str, ...]:
    """A note for each split in which history items, or users, were left out."""
    notes = []
    for name, facts in ((name, split.facts) for name, split in splits.items()):
        if facts.dropped_items:
            items = f"{facts.dropped_items} history items are in only some of their user's profiles"
            notes.append(f"{name}: {items} and are left out")
        if facts.dropped_users:
            notes.append(f"{name}: {facts.dropped_users} users whose questions share no history item are left out")
    return tuple(notes)


def _empty_notes(evaluated: Selection) -> tuple[str, ...]:
    """A note on users without a history, if there are any."""
    empty = sum(window.start == window.stop for window in evaluated.windows)
    of = f"{empty} of {len(evaluated)} evaluated users have no history"
    return (f"{of}: methods answer them like users to whom they were not adapted",) if empty else ()


def entries_of(folder: Path) -> str:
    """What is in a folder, for messages."""
    names: Sequence[str] = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:20]) + (" …" if len(names) > 20 else "") or "nothing"
