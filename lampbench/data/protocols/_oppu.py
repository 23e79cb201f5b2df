"""OPPU's release as it comes: ``DATA/scholarly_title/user_top_100_history.json`` and so on."""

from __future__ import annotations

from pathlib import Path

from lampbench.core import InputError, MissingDataError, Task
from lampbench.data._licence import LAMP
from lampbench.data.files import OTHERS, OppuUsers, labels_beside, list_file, oppu_folder
from lampbench.data.protocols._parts import FileProtocol, Parts, entries_of
from lampbench.data.store import Selection, Split, stored_split


class Oppu100(FileProtocol):
    """The users that OPPU, and PerFit after it, are evaluated on; everyone else is shared.

    Protocol of Tan et al., EMNLP 2024; the files are linked from their repository.
    """

    about = "OPPU's released users (--data, its folder of task folders): others are shared, the top 100 are evaluated"
    licence = LAMP

    def parts(self, task: Task, data: Path | None) -> Parts:
        """Both files; raises InputError as ``Protocol.load`` says."""
        root = _task_folder(task, data)
        evaluated = list_file(root / task.oppu_users)
        split = self._split(OppuUsers(evaluated, labels_beside(evaluated)), task)
        others = list_file(root / OTHERS)
        shared = Selection.whole(self._split(OppuUsers(others), task)) if others.exists() else None
        return Parts(Selection.whole(split), shared)

    def _split(self, users: OppuUsers, task: Task) -> Split:
        return stored_split([users], task, cached=True, say=self.say, tolerate=self.tolerate)


def _task_folder(task: Task, data: Path | None) -> Path:
    name = oppu_folder(task)
    if data is None:
        raise InputError(f"the protocol 'oppu100' needs --data, the release's folder that contains {name}")
    if not data.is_dir():
        raise InputError(f"--data {data}: {'not a' if data.exists() else 'no such'} folder")
    root = data / name
    if not root.is_dir():
        raise MissingDataError(f"--data {data}: no folder {name} for {task.name}; found {entries_of(data)}")
    return root
