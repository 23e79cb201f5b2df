"""Data in LaMP's official layout: ``DATA/LaMP_5/{train,dev}/{train,dev}_{questions,outputs}.json``.

The users of train are shared, the users of dev are evaluated. A folder without train serves methods
that have no shared stage.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from lampbench.core import InputError, MissingDataError, Task, cache_folder
from lampbench.data._licence import LAMP
from lampbench.data.download import Setting, check_lock
from lampbench.data.files import LampSplit
from lampbench.data.protocols._parts import FileProtocol, Parts, dropped_notes, entries_of
from lampbench.data.store import Selection, Split, stored_split


class LayoutProtocol(FileProtocol):
    """Base of protocols that read the official layout.

    Attributes:
        names_users: Whether questions must name their user, or must not; None: either.
    """

    names_users: ClassVar[bool | None] = None

    @abstractmethod
    def folder(self, task: Task, data: Path | None) -> Path:
        """The folder that contains ``LaMP_5`` and its like."""

    def parts(self, task: Task, data: Path | None) -> Parts:
        """Both splits; raises InputError like ``Protocol.load``."""
        root = _task_folder(self.folder(task, data), task)
        splits = {name: self._split([root / name], task) for name in _splits(root)}
        shared = Selection.whole(splits["train"]) if "train" in splits else None
        return Parts(Selection.whole(splits["dev"]), shared, dropped_notes(splits))

    def pooled(self, task: Task, data: Path | None) -> Split:
        """Train and dev as one; a user of both has the history that both show."""
        root = _task_folder(self.folder(task, data), task)
        return self._split([root / name for name in reversed(_splits(root))], task)

    def _split(self, folders: list[Path], task: Task) -> Split:
        split = stored_split(
            [LampSplit(folder) for folder in folders], task, cached=True, say=self.say, tolerate=self.tolerate
        )
        if self.names_users not in (None, _names_users(split)):
            found, expected = ("a", "none (lamp-user)") if _names_users(split) else ("no", "one (lamp-time)")
            raise InputError(
                f"{folders[0]}: its questions have {found} user_id; expected {expected}; "
                "are these the files of the other setting?"
            )
        return split


class FolderProtocol(LayoutProtocol):
    """Your own files in LaMP's layout (--data): train users are shared, dev users are evaluated."""

    about = "your folder in LaMP's layout (--data): train users are shared, dev users are evaluated"

    def folder(self, task: Task, data: Path | None) -> Path:
        """The user's ``--data``."""
        if data is None:
            raise InputError(f"the protocol 'folder' needs --data, a folder that contains {task.official[0]}")
        return data


class _Official(LayoutProtocol):
    setting: ClassVar[Setting]
    licence = LAMP

    def parts(self, task: Task, data: Path | None) -> Parts:
        """Both splits; if ``lampbench data get`` recorded them, they must match."""
        parts = super().parts(task, data)
        check_lock(self.setting, task, self.folder(task, data), parts.sources)
        return parts

    def pooled(self, task: Task, data: Path | None) -> Split:
        """Train and dev as one, likewise."""
        split = super().pooled(task, data)
        check_lock(self.setting, task, self.folder(task, data), split.facts.sources)
        return split

    def folder(self, task: Task, data: Path | None) -> Path:
        """The user's ``--data``, or where ``lampbench data get`` puts the files."""
        if data is not None:
            return data
        fetched = cache_folder() / self.setting
        if not LampSplit(fetched / task.official[0] / "dev").questions.exists():
            raise MissingDataError(
                f"no {self.setting} files of {task.name} in {fetched}; fetch them: "
                f"lampbench data get {self.setting} --task {task.name}; or name their folder by --data"
            )
        return fetched


class LampTime(_Official):
    """The time-based split: a user's later items are asked about, the same users may be in train and dev."""

    about = "LaMP's time-based split: train is shared, dev is evaluated; lampbench data get lamp-time"
    setting = "lamp-time"
    names_users = True


class LampUser(_Official):
    """The user-based split: every question is a user, and the users of dev are new."""

    about = "LaMP's user-based split: train is shared, dev is evaluated; lampbench data get lamp-user"
    setting = "lamp-user"
    names_users = False


def _task_folder(data: Path, task: Task) -> Path:
    if not data.is_dir():
        raise InputError(f"--data {data}: {'not a' if data.exists() else 'no such'} folder")
    root = data / task.official[0]
    if not root.is_dir():
        hint = "; use the folder above it" if data.name == root.name else ""
        raise MissingDataError(f"--data {data}: no folder {root.name} for {task.name}; found {entries_of(data)}{hint}")
    return root


def _names_users(split: Split) -> bool:
    """Whether the files name users. Either all questions do, or none, and each is its own user."""
    some = range(min(len(split), 100))
    return any(labelled.query.id != split.ids[number] for number in some for labelled in split.queries(number))


def _splits(root: Path) -> list[str]:
    return ["dev", *(["train"] if (root / "train").exists() else [])]
