"""The ``folder`` protocol: any data in LaMP's official layout.

``DATA/LaMP_5/{train,dev}/{train,dev}_{questions,outputs}.json``: the users of train are shared, the
users of dev are evaluated. A folder without train serves methods that have no shared stage.
"""

from __future__ import annotations

from pathlib import Path

from lampbench.core import InputError, LabelledQuery, Query, SharedUser, Task
from lampbench.data._dataset import Dataset, Protocol
from lampbench.data._lamp_files import Outputs, Questions, check_same_ids, read_golds, read_questions


class FolderProtocol(Protocol):
    """Reads a folder in the official layout."""

    about = "your folder in LaMP's layout (--data): train users are shared, dev users are evaluated"

    def load(self, task: Task, data: Path | None) -> Dataset:
        """Read both splits; raises InputError as ``Protocol.load`` says."""
        if data is None:
            raise InputError("the protocol 'folder' needs --data, a folder that contains LaMP_2M, LaMP_2N, LaMP_3 …")
        if not data.is_dir():
            raise InputError(f"--data {data}: no such folder")
        root = data / task.official[0]
        if not root.is_dir():
            found = ", ".join(sorted(entry.name for entry in data.iterdir())) or "nothing"
            raise InputError(f"--data {data}: no folder {root.name} for {task.name}; found {found}")
        sources: dict[str, str] = {}
        dev, golds = _split(root, "dev", task, sources)
        label = golds.label
        notes = _dropped_note("dev", dev)
        shared: tuple[SharedUser, ...] = ()
        if (root / "train").exists():
            train, targets = _split(root, "train", task, sources)
            shared = _shared_users(train, targets.by_id)
            label = label or targets.label
            notes += _dropped_note("train", train)
        _check_disjoint(shared, dev, root)
        return Dataset(shared, dev.users, dev.queries, golds.by_id, sources, notes, label)


def _split(root: Path, split: str, task: Task, sources: dict[str, str]) -> tuple[Questions, Outputs]:
    questions_path = root / split / f"{split}_questions.json"
    outputs_path = root / split / f"{split}_outputs.json"
    questions = read_questions(questions_path, task)
    golds = read_golds(outputs_path, task)
    check_same_ids({query.id for query in questions.queries}, set(golds.by_id), questions_path, outputs_path)
    sources[f"{root.name}/{split}/{questions_path.name}"] = questions.sha256
    sources[f"{root.name}/{split}/{outputs_path.name}"] = golds.sha256
    return questions, golds


def _shared_users(train: Questions, targets: dict[str, str]) -> tuple[SharedUser, ...]:
    by_user: dict[str, list[Query]] = {}
    for query in train.queries:
        by_user.setdefault(query.user_id, []).append(query)
    return tuple(
        SharedUser(user, tuple(LabelledQuery(query, targets[query.id]) for query in by_user[user.id]))
        for user in train.users
    )


def _check_disjoint(shared: tuple[SharedUser, ...], dev: Questions, root: Path) -> None:
    both = {entry.user.id for entry in shared} & {user.id for user in dev.users}
    if both:
        raise InputError(
            f"{root}: {len(both)} users are in train and in dev, one is {min(both)!r}; "
            "the shared stage would see evaluated users"
        )


def _dropped_note(split: str, questions: Questions) -> tuple[str, ...]:
    if not questions.dropped_items:
        return ()
    return (
        f"{split}: {questions.dropped_items} history items are in only some of their user's profiles and are left out",
    )
