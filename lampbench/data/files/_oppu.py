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
from lampbench.data.files._json import kind, read_records, shown
from lampbench.data.files._lamp import check_gold, read_outputs
from lampbench.data.files._records import Block, check_object, read_id, read_query, read_string

OTHERS = "user_others.json"
_USER_FIELDS = frozenset({"user_id", "profile", "query"})
_QUERY_FIELDS = frozenset({"id", "input", "gold", "date"})


def oppu_folder(task: Task) -> str:
    """The release's name for a task; raises InputError for a task that is not in it."""
    if task.oppu_folder is None:
        raise InputError(f"{task.name} is no task of OPPU's release; its Task names no oppu_folder")
    return task.oppu_folder


def labels_beside(users: Path) -> Path | None:
    """The label file of a file of evaluated users, or None."""
    labels = users.with_name(f"{users.stem}_label.json")
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

    def read(self, task: Task) -> tuple[str | None, Iterator[Block]]:
        """No label, and a block per user.

        Raises:
            InputError: Wrong shape, a user or id twice, an unknown or missing field, a gold that is
                no answer or differs from the label file's.
        """
        if self.labels is None:
            return None, self._blocks(task, None)
        labels = read_outputs(self.labels, None)
        return labels.label, self._blocks(task, labels.by_id)

    def _blocks(self, task: Task, labels: dict[str, str] | None) -> Iterator[Block]:
        users: set[str] = set()
        asked = 0
        for number, record in enumerate(read_records(self.users)):
            where = f"{self.users}: user {number}"
            check_object(record, _USER_FIELDS, "user_id, profile and query", where)
            user_id = read_id(record, "user_id", where)
            where = f"{where} (id {user_id!r})"
            if user_id in users:
                raise InputError(f"{where}: the user occurs twice")
            users.add(user_id)
            queries = self._queries(record.get("query"), user_id, task, labels, where)
            asked += len(queries)
            yield Block(user_id, queries, record.get("profile"), where)
        if not users:
            raise InputError(f"{self.users}: expected a non-empty JSON list of users, found an empty list")
        if labels is not None and len(labels) != asked:
            raise InputError(f"{self.labels}: {len(labels)} golds for the {asked} queries of {self.users}")

    def _queries(
        self, records: Any, user_id: str, task: Task, labels: dict[str, str] | None, where: str
    ) -> tuple[LabelledQuery, ...]:
        if not isinstance(records, list) or not records:
            raise InputError(f"{where}: 'query' is {kind(records)}; expected a non-empty list of queries")
        queries = []
        for number, record in enumerate(records):
            here = f"{where}: query[{number}]"
            check_object(record, _QUERY_FIELDS, "id, input and gold", here)
            query = read_query(record, user_id, task, here)
            gold = read_string(record, "gold", here)
            check_gold(gold, query.id, task, here)
            if labels is not None and labels.get(query.id) != gold:
                label = shown(labels.get(query.id))
                raise InputError(f"{self.labels}: {query.id!r} is {label}, but {shown(gold)} in {here}")
            queries.append(LabelledQuery(query, gold))
        return tuple(queries)
