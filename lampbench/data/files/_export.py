"""The official layouts, written back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from lampbench.core import HistoryItem, LabelledQuery, LabelledUser, Task
from lampbench.data.files._oppu import OTHERS, oppu_folder

Layout = Literal["lamp", "oppu"]


@dataclass(frozen=True)
class Exported:
    """One task's users, to be written.

    Attributes:
        evaluated: Evaluated users with their labelled queries.
        shared: Shared users; possibly empty.
        label: What golds files say under ``about``; None for real data.
    """

    task: Task
    evaluated: Collection[LabelledUser]
    shared: Collection[LabelledUser]
    label: str | None


def export(what: Exported, layout: Layout, folder: Path) -> list[Path]:
    """Write users below ``folder``, one at a time, and return the files.

    Fields of history items that no prompt shows (a news article's title, in LaMP-2N) are not kept on
    reading and so not written; the tags in a question of LaMP-2M are in the task's order.
    """
    return _lamp(what, folder) if layout == "lamp" else _oppu(what, folder)


def _lamp(what: Exported, folder: Path) -> list[Path]:
    # In the user-based split every question is a user, and questions name none.
    everyone = chain(what.evaluated, what.shared)
    named = any(len(e.queries) != 1 or e.queries[0].query.id != e.user.id for e in everyone)
    written = []
    for split, users in (("train", what.shared), ("dev", what.evaluated)):
        if not users:
            continue
        target = folder / what.task.official[0] / split
        target.mkdir(parents=True)
        questions, outputs = (target / f"{split}_{kind}.json" for kind in ("questions", "outputs"))
        _write_list(questions, (text for entry in users for text in _questions(entry, what.task, named)))
        _write_golds(outputs, what.task.official[0], what.label, (q for entry in users for q in entry.queries))
        written += [questions, outputs]
    return written


def _oppu(what: Exported, folder: Path) -> list[Path]:
    target = folder / oppu_folder(what.task)
    target.mkdir(parents=True)
    users = target / what.task.oppu_users
    labels = users.with_name(f"{users.stem}_label.json")
    _write_list(users, (_user(entry, what.task) for entry in what.evaluated))
    _write_golds(labels, what.task.official[0], what.label, (q for entry in what.evaluated for q in entry.queries))
    if not what.shared:
        return [users, labels]
    _write_list(target / OTHERS, (_user(entry, what.task) for entry in what.shared))
    return [users, labels, target / OTHERS]


def _questions(entry: LabelledUser, task: Task, named: bool) -> Iterator[str]:
    profile = json.dumps([_item(item, task) for item in entry.user.history])
    for labelled in entry.queries:
        user = {"user_id": entry.user.id} if named else {}
        head = json.dumps({**_asked(labelled, task), **user})
        # The profile of all questions of a user is one text.
        yield f'{head[:-1]}, "profile": {profile}}}'


def _user(entry: LabelledUser, task: Task) -> str:
    queries = [{**_asked(labelled, task), "gold": labelled.target} for labelled in entry.queries]
    profile = [_item(item, task) for item in entry.user.history]
    return json.dumps({"user_id": entry.user.id, "profile": profile, "query": queries})


def _asked(labelled: LabelledQuery, task: Task) -> dict[str, str]:
    query = labelled.query
    return {"id": query.id, "input": task.raw_input(query.text), **({"date": query.date} if query.date else {})}


def _item(item: HistoryItem, task: Task) -> dict[str, str]:
    source = {task.item_source: item.source} if task.item_source else {}
    return {"id": item.id, **source, task.item_target: item.target, **({"date": item.date} if item.date else {})}


def _write_list(path: Path, records: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for number, record in enumerate(records):
            stream.write(f",\n{record}" if number else record)
        stream.write("]\n")


def _write_golds(path: Path, name: str, label: str | None, queries: Iterable[LabelledQuery]) -> None:
    about: Mapping[str, Any] = {"about": label} if label else {}
    with path.open("w", encoding="utf-8") as stream:
        stream.write(f'{json.dumps({"task": name, **about})[:-1]}, "golds": [')
        for number, labelled in enumerate(queries):
            gold = json.dumps({"id": labelled.query.id, "output": labelled.target})
            stream.write(f", {gold}" if number else gold)
        stream.write("]}\n")
