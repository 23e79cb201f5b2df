"""OPPU's processed release (Tan et al., EMNLP 2024): a folder per task, a record per user.

``user_top_100_history.json`` (``user_more_100_history.json`` for tweets) and ``user_others.json`` are
lists of ``{"user_id", "profile": [...], "query": [{"id", "input", "gold"}]}``. The label file repeats
the golds, under task names that are not LaMP's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampbench.core import InputError, LabelledQuery, Task
from lampbench.data.files._json import kind, list_file, read_records, shown
from lampbench.data.files._lamp import check_gold, read_outputs
from lampbench.data.files._reading import ReadingLog
from lampbench.data.files._records import Block, check_object, read_answer, read_id, read_query

OTHERS = "user_others.json"
_USER_FIELDS = frozenset({"user_id", "profile", "query"})
_QUERY_FIELDS = frozenset({"id", "input", "gold", "date"})


def oppu_folder(task: Task) -> str:
    """The release's name for a task; raises InputError for a task that is not in it."""
    if task.oppu_folder is None:
        raise InputError(f"{task.name} is not a task of OPPU's release; its Task names no oppu_folder")
    return task.oppu_folder


def labels_beside(users: Path) -> Path | None:
    """The label file of a file of evaluated users, or None."""
    labels = list_file(users.with_name(f"{users.stem}_label.json"))
    return labels if labels.exists() else None


@dataclass(frozen=True)
class OppuUsers:
    """A file of users, and its label file or None."""

    users: Path
    labels: Path | None = None

    def files(self) -> Mapping[str, str]:
        """Name in the release -> path."""
        paths = [self.users, *([self.labels] if self.labels else [])]
        return {f"{path.parent.name}/{path.name}": str(path) for path in paths}

    def read(self, task: Task, log: ReadingLog) -> tuple[str | None, Iterator[Block]]:
        """No label, and a block per user.

        A user or a query that cannot be read goes to ``log``.

        Raises:
            InputError: A file has another shape, a gold differs from the label file's, or ``log`` tolerates nothing.
        """
        if self.labels is None:
            return None, self._blocks(task, None, log)
        labels = read_outputs(self.labels, None)
        return labels.label, self._blocks(task, labels.by_id, log)

    def _blocks(self, task: Task, labels: dict[str, str] | None, log: ReadingLog) -> Iterator[Block]:
        users: set[str] = set()
        records = asked = read = lost = 0
        for number, record in enumerate(read_records(self.users)):
            records += 1
            where, user_id = f"{self.users}: user {number}", f"#{number}"
            before = log.records
            try:
                check_object(record, _USER_FIELDS, "user_id, profile and query", where, log)
                user_id = read_id(record, "user_id", where)
                where = f"{where} (id {user_id!r})"
                if user_id in users:
                    raise InputError(f"{where}: the user occurs twice")
                users.add(user_id)
                queries = self._queries(record.get("query"), user_id, task, labels, where, log)
            except InputError as error:
                # A user without a query that could be counted counts as one.
                lost += 1
                log.records = max(log.records, before + 1)
                log.set_aside(error, self.users, user_id)
                continue
            asked += log.records - before
            read += len(queries)
            if queries:
                yield Block(user_id, queries, record.get("profile"), self.users, where)
        if not records:
            raise InputError(f"{self.users}: expected a non-empty JSON list of users, found an empty list")
        # How many queries a user has who cannot be read is not known; a query that cannot be read may have no gold.
        if labels is not None and not lost and not read <= len(labels) <= asked:
            raise InputError(f"{self.labels}: {len(labels)} golds for the {asked} queries of {self.users}")

    def _queries(
        self, records: Any, user_id: str, task: Task, labels: dict[str, str] | None, where: str, log: ReadingLog
    ) -> tuple[LabelledQuery, ...]:
        if not isinstance(records, list) or not records:
            raise InputError(f"{where}: 'query' is {kind(records)}; expected a non-empty list of queries")
        queries = []
        for number, record in enumerate(records):
            here, query_id = f"{where}: query[{number}]", f"{user_id}/#{number}"
            log.records += 1
            try:
                check_object(record, _QUERY_FIELDS, "id, input and gold", here, log)
                query_id = read_id(record, "id", here)
                query = read_query(record, user_id, task, here)
                gold = read_answer(record, "gold", task, here)
                check_gold(gold, query.id, task, here)
                if labels is not None and labels.get(query.id) != gold:
                    label = shown(labels.get(query.id))
                    raise InputError(f"{self.labels}: {query.id!r} is {label}, but {shown(gold)} in {here}")
            except InputError as error:
                log.set_aside(error, self.users, query_id)
                continue
            queries.append(LabelledQuery(query, gold))
        return tuple(queries)
