"""LaMP's own files: a questions file and an outputs file.

Formats: the LaMP benchmark's public repository (Salemi et al., ACL 2024). Questions are a JSON list
of ``{"id", "input", "profile": [...]}``, with ``"user_id"`` in the time-based split; outputs and
predictions are ``{"task", "golds": [{"id", "output"}]}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampbench.core import InputError, LabelledQuery, Task
from lampbench.data.files._json import kind, read_json, read_records, shown
from lampbench.data.files._records import Block, check_object, read_id, read_query, read_string

_QUESTION_FIELDS = frozenset({"id", "user_id", "input", "profile", "date"})


@dataclass(frozen=True)
class Outputs:
    """A golds or predictions file.

    Attributes:
        by_id: Question id -> output, in file order.
        label: What the file calls itself under ``about``, as synthetic files do; else None.
    """

    by_id: dict[str, str]
    label: str | None


@dataclass(frozen=True)
class LampSplit:
    """A questions file and its outputs file: ``folder`` is that of one split of one task, as ``LaMP_5/dev``."""

    folder: Path

    @property
    def questions(self) -> Path:
        """The questions file."""
        return self.folder / f"{self.folder.name}_questions.json"

    @property
    def outputs(self) -> Path:
        """The outputs file."""
        return self.folder / f"{self.folder.name}_outputs.json"

    def files(self) -> Mapping[str, str]:
        """Official name -> path."""
        place = f"{self.folder.parent.name}/{self.folder.name}"
        return {f"{place}/{path.name}": str(path) for path in (self.questions, self.outputs)}

    def read(self, task: Task) -> tuple[str | None, Iterator[Block]]:
        """The label that the golds bear, and a block a question.

        Raises:
            InputError: Wrong shape, duplicate ids, ids that are in one file only, an unknown or
                missing field, an input without the task's marker, a gold that is no answer.
        """
        golds = read_golds(self.outputs, task)
        return golds.label, self._blocks(task, golds.by_id)

    def _blocks(self, task: Task, golds: Mapping[str, str]) -> Iterator[Block]:
        ids: set[str] = set()
        questions = with_user = 0
        for number, record in enumerate(read_records(self.questions)):
            where = f"{self.questions}: question {number}"
            check_object(record, _QUESTION_FIELDS, "id, input and profile", where)
            query_id = read_id(record, "id", where)
            where = f"{where} (id {query_id!r})"
            questions, with_user = questions + 1, with_user + ("user_id" in record)
            user_id = read_id(record, "user_id", where) if "user_id" in record else query_id
            query = read_query(record, user_id, task, where)
            ids.add(query.id)
            # Ids that lack a gold are told all together, below.
            yield Block(user_id, (LabelledQuery(query, golds.get(query.id, "")),), record.get("profile"), where)
        if not questions:
            raise InputError(f"{self.questions}: expected a non-empty JSON list of questions, found an empty list")
        if with_user not in (0, questions):
            raise InputError(
                f"{self.questions}: {with_user} of {questions} questions have a user_id; "
                "expected all (time-based split) or none (user-based: every question is a user)"
            )
        check_same_ids(ids, set(golds), self.questions, self.outputs)


def read_outputs(path: Path, task: Task | None) -> Outputs:
    """A golds or predictions file; of ``task``, or under any task name if that is None.

    Raises:
        InputError: Wrong shape, a duplicate id, or a file of another LaMP task.
    """
    content, _ = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("golds"), list):
        raise InputError(f'{path}: expected {{"task": …, "golds": [{{"id", "output"}}]}}, found {kind(content)}')
    if task is not None:
        _check_task(path, content.get("task"), task)
    outputs: dict[str, str] = {}
    for number, record in enumerate(content["golds"]):
        where = f"{path}: golds[{number}]"
        if not isinstance(record, dict):
            raise InputError(f'{where}: expected {{"id", "output"}}, found {kind(record)}')
        record_id = read_id(record, "id", where)
        if record_id in outputs:
            raise InputError(f"{where}: the id {record_id!r} occurs twice; every question has one output")
        outputs[record_id] = read_string(record, "output", f"{where} (id {record_id!r})")
    about = content.get("about")
    return Outputs(outputs, about if isinstance(about, str) else None)


def read_golds(path: Path, task: Task) -> Outputs:
    """As ``read_outputs``, for a golds file: not empty, and every output a valid answer of the task."""
    golds = read_outputs(path, task)
    if not golds.by_id:
        raise InputError(f"{path}: there are no golds in it")
    for query_id, gold in golds.by_id.items():
        check_gold(gold, query_id, task, str(path))
    return golds


def check_gold(gold: str, query_id: str, task: Task, where: str) -> None:
    """Raise InputError unless ``gold`` is a valid answer of the task."""
    if not task.accepts(gold.strip()):
        known = f"; known: {', '.join(task.labels)}" if task.labels else ""
        raise InputError(f"{where}: the gold of {query_id!r} is {shown(gold)}, no answer of {task.name}{known}")


def check_same_ids(questions: set[str], outputs: set[str], questions_path: Path, outputs_path: Path) -> None:
    """Raise InputError unless both files speak of the same ids."""
    for found, wanted, there, here in (
        (outputs, questions, questions_path, outputs_path),
        (questions, outputs, outputs_path, questions_path),
    ):
        missing = sorted(wanted - found)
        if missing:
            raise InputError(
                f"{here}: {len(missing)} of the {len(wanted)} ids of {there} are missing, the first is {missing[0]!r}; "
                "both files must come from the same split"
            )


def _check_task(path: Path, found: Any, task: Task) -> None:
    # Files of other makers carry names of their own; only another LaMP task's name is surely wrong.
    if isinstance(found, str) and re.fullmatch(r"LaMP_\d[MN]?", found) and found not in task.official:
        raise InputError(f"{path}: this file says task {found!r}, expected {' or '.join(map(repr, task.official))}")
