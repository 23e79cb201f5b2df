"""LaMP's own files: a questions file and an outputs file.

Formats: the LaMP benchmark's public repository (Salemi et al., ACL 2024). Questions are a JSON list
of ``{"id", "input", "profile": [...]}``, with ``"user_id"`` in the time-based split; outputs and
predictions are ``{"task", "golds": [{"id", "output"}]}``. Beyond that, questions may be JSON Lines, and
outputs a list, or JSON Lines, of ``{"id", "output"}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lampbench.core import InputError, LabelledQuery, Task
from lampbench.data.files._defects import defects_of
from lampbench.data.files._json import kind, list_file, read_json, read_records, shown
from lampbench.data.files._reading import ReadingLog
from lampbench.data.files._records import Block, check_object, read_answer, read_id, read_query

_OUTPUTS_FORM = '{"task": …, "golds": [{"id", "output"}]}'
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
        """The questions file: ``.json``, or ``.jsonl`` if there is only that."""
        return list_file(self.folder / f"{self.folder.name}_questions.json")

    @property
    def outputs(self) -> Path:
        """The outputs file, likewise."""
        return list_file(self.folder / f"{self.folder.name}_outputs.json")

    def files(self) -> Mapping[str, str]:
        """Official name -> path."""
        return {self._name(path): str(path) for path in (self.questions, self.outputs)}

    def read(self, task: Task, log: ReadingLog) -> tuple[str | None, Iterator[Block]]:
        """The label that the golds have, and a block per question.

        A question that cannot be read, or has no gold that is an answer of the task, goes to ``log``.

        Raises:
            InputError: A file has another shape, is damaged as a whole, or ``log`` tolerates nothing.
        """
        wrong: dict[str, InputError] = {}

        def take(error: InputError, query_id: str | None, number: int) -> None:
            # A gold without id belongs to no question; its question will be found to have none.
            if query_id is None or not log.tolerate:
                log.set_aside(error, self.outputs, query_id or f"#{number}")
            else:
                wrong.setdefault(query_id, error)

        golds = _read_outputs(self.outputs, task, take)
        if not golds.by_id:
            raise _no_golds(self.outputs)
        _check_golds(golds, task, self.outputs, take)
        if not log.tolerates(len(wrong), len(golds.by_id.keys() | wrong)):
            # Checked before a long file is read.
            raise InputError(
                f"{next(iter(wrong.values()))}; this is one of {len(wrong)} such golds of {len(golds.by_id)}"
            )
        return golds.label, self._blocks(task, golds.by_id, wrong, log)

    def _blocks(
        self, task: Task, golds: Mapping[str, str], wrong: Mapping[str, InputError], log: ReadingLog
    ) -> Iterator[Block]:
        path, defects = self.questions, defects_of(self._name(self.questions))
        ids: set[str] = set()
        without_gold: list[tuple[str, str]] = []
        records = questions = with_user = 0
        for number, record in enumerate(read_records(path)):
            where, query_id = f"{path}: question {number}", f"#{number}"
            records += 1
            log.records += 1
            try:
                check_object(record, _QUESTION_FIELDS, "id, input and profile", where, log)
                query_id = read_id(record, "id", where)
                where = f"{where} (id {query_id!r})"
                ids.add(query_id)
                if with_user and "user_id" not in record:
                    raise InputError(f"{where}: there is no user_id, but questions before it have one")
                user_id = read_id(record, "user_id", where) if "user_id" in record else query_id
                defect = defects.get(query_id)
                mended = defect.text(record.get("input")) if defect else None
                query = read_query(record, user_id, task, where, mended)
                if query_id in wrong:
                    raise wrong[query_id]
                questions, with_user = questions + 1, with_user + ("user_id" in record)
            except InputError as error:
                log.set_aside(error, self.outputs if error is wrong.get(query_id) else path, query_id)
                continue
            if query_id not in golds:
                without_gold.append((query_id, where))
                continue
            if defect and mended is not None:
                log.mend(path, query_id, f"question {number} (id {query_id!r}): {defect.wrong}")
            yield Block(user_id, (LabelledQuery(query, golds[query_id]),), record.get("profile"), path, where)
        if not records:
            raise InputError(f"{path}: expected a non-empty JSON list of questions, found an empty list")
        if with_user not in (0, questions):
            raise InputError(
                f"{path}: {with_user} of {questions} questions have a user_id; "
                "expected all (time-based split) or none (user-based: every question is a user)"
            )
        self._match(ids, golds.keys() | wrong.keys(), without_gold, log)

    def _match(self, ids: set[str], golds: set[str], without_gold: list[tuple[str, str]], log: ReadingLog) -> None:
        """Set aside what is in only one of the files; refuse files that differ in much, such as another split's."""
        without_question = sorted(golds - ids)
        if not log.tolerates(len(without_gold) + len(without_question), len(ids)):
            check_same_ids(ids, golds, self.questions, self.outputs)
        for query_id, where in without_gold:
            log.set_aside(InputError(f"{where}: there is no gold for it"), self.questions, query_id)
        for query_id in without_question:
            error = InputError(f"{self.outputs}: the gold of {query_id!r}: there is no question for it")
            log.set_aside(error, self.outputs, query_id)

    def _name(self, path: Path) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}/{path.name}"


def read_outputs(path: Path, task: Task | None) -> Outputs:
    """A golds or predictions file; of ``task``, or under any task name if that is None.

    Raises:
        InputError: Wrong shape, a duplicate id, or a file of another LaMP task.
    """
    return _read_outputs(path, task, _refuse)


def read_golds(path: Path, task: Task) -> Outputs:
    """As ``read_outputs``, for a golds file: not empty, and every output a valid answer of the task."""
    golds = read_outputs(path, task)
    if not golds.by_id:
        raise _no_golds(path)
    _check_golds(golds, task, path, _refuse)
    return golds


def _read_outputs(path: Path, task: Task | None, wrong: Callable[[InputError, str | None, int], Any]) -> Outputs:
    """As ``read_outputs``; records that cannot be read go to ``wrong``, with their id and number."""
    content = _outputs_content(path)
    about = None
    if isinstance(content, dict) and "golds" not in content and "output" in content:
        # JSON Lines of one line.
        content = [content]
    if isinstance(content, dict) and isinstance(content.get("golds"), list):
        if task is not None:
            _check_task(path, content.get("task"), task)
        about, content = content.get("about"), content["golds"]
    if not isinstance(content, list):
        raise InputError(f"{path}: expected {_OUTPUTS_FORM}, found {kind(content)}")
    outputs: dict[str, str] = {}
    for number, record in enumerate(content):
        where, record_id = f"{path}: golds[{number}]", None
        try:
            if not isinstance(record, dict):
                raise InputError(f'{where}: expected {{"id", "output"}}, found {kind(record)}')
            record_id = read_id(record, "id", where)
            output = read_answer(record, "output", task, f"{where} (id {record_id!r})")
            if record_id in outputs:
                raise InputError(f"{where}: the id {record_id!r} occurs twice; every question has one output")
            outputs[record_id] = output
        except InputError as error:
            wrong(error, record_id, number)
    return Outputs(outputs, about if isinstance(about, str) else None)


def _outputs_content(path: Path) -> Any:
    """A whole JSON file, or the objects of JSON Lines as a list."""
    try:
        return read_json(path)[0]
    except InputError as error:
        if not _are_lines(path):
            raise error from None
    return list(read_records(path))


def _are_lines(path: Path) -> bool:
    """Whether a file that is no JSON is JSON Lines: it begins with two objects, none of them of the official form."""
    try:
        first = list(islice(read_records(path), 2))
    except InputError:
        return False
    return len(first) == 2 and all(isinstance(record, dict) and "golds" not in record for record in first)


def _no_golds(path: Path) -> InputError:
    return InputError(f"{path}: there are no golds in it; expected {_OUTPUTS_FORM}")


def _check_golds(golds: Outputs, task: Task, path: Path, wrong: Callable[[InputError, str, int], Any]) -> None:
    """Add golds that are not answers of the task to ``wrong``."""
    for number, (query_id, gold) in enumerate(golds.by_id.items()):
        try:
            check_gold(gold, query_id, task, str(path))
        except InputError as error:
            wrong(error, query_id, number)


def _refuse(error: InputError, query_id: str | None, number: int) -> None:
    raise error


def check_gold(gold: str, query_id: str, task: Task, where: str) -> None:
    """Raise InputError unless ``gold`` is a valid answer of the task."""
    if not task.accepts(gold.strip()):
        known = f"; known: {', '.join(task.labels)}" if task.labels else ""
        raise InputError(f"{where}: the gold of {query_id!r} is {shown(gold)}, no answer of {task.name}{known}")


def check_same_ids(questions: set[str], outputs: set[str], questions_path: Path, outputs_path: Path) -> None:
    """Raise InputError unless both files have the same ids."""
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
    # Files from elsewhere have their own names; only another LaMP task's name is surely wrong.
    if isinstance(found, str) and re.fullmatch(r"LaMP_\d[MN]?", found) and found not in task.official:
        raise InputError(f"{path}: this file says task {found!r}, expected {' or '.join(map(repr, task.official))}")
