"""From files to tables: one pass, memory that does not grow with the files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path

import pyarrow as pa

from lampbench.core import InputError, LabelledQuery, Task, write_json
from lampbench.data.files import Block, Columns, Reading, ReadingLog, Source, read_columns
from lampbench.data.store._split import Split, SplitFacts
from lampbench.data.store._tables import (
    HISTORIES,
    MANIFEST,
    RESOLVED,
    USER_SCHEMA,
    USERS,
    HistoryHash,
    HistoryWriter,
    ListColumn,
    TableWriter,
    Utf8History,
    file_sizes,
    open_table,
    user_batch,
)

# Part of a stored split's name: must be raised if the same files would be stored differently.
CONVERTER_VERSION = 2
_VERSIONS = "versions.arrow"
_USERS_A_BATCH = 2000


@dataclass
class _Known:
    """A user who was read so far.

    Attributes:
        row, items, hash: The history that came first.
        others: Hash -> row of each different history of the same user, among the versions.
        dropped: Whether the user's histories share nothing.
    """

    row: int
    items: int
    hash: HistoryHash
    queries: list[LabelledQuery]
    others: dict[str, int] = field(default_factory=dict)
    dropped: bool = False


def convert(
    sources: Sequence[Source],
    task: Task,
    hashes: Mapping[str, str],
    folder: Path | None,
    key: str | None,
    tolerate: float,
) -> Split:
    """Store the users of ``sources``. What is stored does not depend on ``tolerate``.

    A history is kept once, however many questions come with it. If one user's questions come with
    different histories, the history is what all of them share, so that no question can see an item
    which its own profile does not list. Items left out are counted, and so are users left without a history.

    Args:
        sources: Files, read one after another.
        task: Whose records they hold.
        hashes: Name -> SHA-256 of the files.
        folder: An empty folder for the tables; None keeps them in memory.
        key: The split's name in the cache.
        tolerate: The share of records that may be set aside because they cannot be read.

    Raises:
        InputError: More records than that are wrong, or a file is; the message names file and record.
    """
    paths = {name: path for source in sources for name, path in source.files().items()}
    log = ReadingLog(tolerate, {path: name for name, path in paths.items()})
    conversion = _Conversion(folder, log)
    try:
        labels = [conversion.read(source, task) for source in sources]
        reading = log.finish()
        reading.check(tolerate, paths)
        histories, users, dropped = conversion.finish()
    except BaseException:
        conversion.abandon()
        raise
    label = next((label for label in labels if label), None)
    facts = SplitFacts(hashes, label, dropped.items, dropped.users, reading)
    if folder is not None:
        # Written last: a folder with a manifest is a whole one.
        manifest = {"version": CONVERTER_VERSION, **asdict(facts), "bytes": file_sizes(folder)}
        write_json(folder / MANIFEST, manifest)
    return Split(histories, users, facts, key)


def open_split(folder: Path, key: str) -> Split | None:
    """A stored split, mapped into memory; or None if it is missing or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != CONVERTER_VERSION or manifest["bytes"] != file_sizes(folder):
            return None
        facts = SplitFacts(
            manifest["sources"],
            manifest["label"],
            manifest["dropped_items"],
            manifest["dropped_users"],
            Reading.from_json(manifest["reading"]),
        )
        histories = pa.concat_tables([open_table(folder / HISTORIES), open_table(folder / RESOLVED)])
        return Split(histories, open_table(folder / USERS), facts, key)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException):
        return None


@dataclass(frozen=True)
class _Dropped:
    items: int
    users: int


class _Conversion:
    def __init__(self, folder: Path | None, log: ReadingLog) -> None:
        self._folder = folder
        self._log = log
        self._users: dict[str, _Known] = {}
        self._query_ids: set[str] = set()
        self._histories = HistoryWriter(self._path(HISTORIES))
        self._versions = HistoryWriter(self._path(_VERSIONS))
        self._open: list[HistoryWriter | TableWriter] = [self._histories, self._versions]

    def read(self, source: Source, task: Task) -> str | None:
        """Take all blocks of a source; its label."""
        label, blocks = source.read(task, self._log)
        last: tuple[str, object] | None = None
        for block in blocks:
            queries = self._new(block)
            if not queries:
                continue
            # Questions of one user mostly follow each other, with the same profile.
            if (block.user_id, block.profile) == last:
                self._users[block.user_id].queries.extend(queries)
                continue
            try:
                self._add(block, queries, task)
            except InputError as error:
                for entry in queries:
                    self._log.set_aside(error, block.path, entry.query.id)
                continue
            last = block.user_id, block.profile
        return label

    def finish(self) -> tuple[pa.Table, pa.Table, _Dropped]:
        """Histories, users, and what was left out."""
        histories, versions = self._histories.finish(), self._versions.finish()
        resolved = HistoryWriter(self._path(RESOLVED))
        users = TableWriter(self._path(USERS), USER_SCHEMA)
        self._open = [resolved, users]
        first, later = ListColumn(histories, "items"), ListColumn(versions, "items")
        dropped = 0
        for known in self._users.values():
            if known.others:
                dropped += _resolve(known, first, later, resolved, histories.num_rows)
        kept = [(user_id, known) for user_id, known in self._users.items() if not known.dropped]
        if not kept:
            raise InputError("no user's questions have a profile item in common; is the history in every question?")
        for start in range(0, len(kept), _USERS_A_BATCH):
            part = kept[start : start + _USERS_A_BATCH]
            users.write(
                user_batch(
                    [user_id for user_id, _ in part],
                    [known.row for _, known in part],
                    [known.items for _, known in part],
                    [known.hash for _, known in part],
                    [known.queries for _, known in part],
                )
            )
        tables = pa.concat_tables([histories, resolved.finish()])
        if self._folder is not None:
            (self._folder / _VERSIONS).unlink()
        return tables, users.finish(), _Dropped(dropped, len(self._users) - len(kept))

    def abandon(self) -> None:
        """Close what is open."""
        for writer in self._open:
            writer.abandon()

    def _path(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name

    def _new(self, block: Block) -> list[LabelledQuery]:
        """The block's queries, without those whose ids were there before."""
        queries = []
        for entry in block.queries:
            query_id = entry.query.id
            if query_id in self._query_ids:
                error = InputError(f"{block.where}: the id occurs twice, {query_id!r} asked before")
                # The first keeps the id; what is set aside is the second, and named so.
                self._log.set_aside(error, block.path, f"{query_id} (again)")
                continue
            self._query_ids.add(query_id)
            queries.append(entry)
        return queries

    def _add(self, block: Block, queries: Sequence[LabelledQuery], task: Task) -> None:
        columns = read_columns(block, task, self._log)
        try:
            history = Utf8History.of(columns)
        except UnicodeEncodeError:
            columns = read_columns(block, task, self._log, encodable=True)
            history = Utf8History.of(columns)
        name = HistoryHash.of_encoded(columns, history)
        known = self._users.get(block.user_id)
        if known is None:
            row = self._histories.append(history)
            self._users[block.user_id] = _Known(row, len(columns.ids), name, list(queries))
            return
        known.queries.extend(queries)
        if name != known.hash and name.whole not in known.others:
            known.others[name.whole] = self._versions.append(history)


def _resolve(known: _Known, histories: ListColumn, versions: ListColumn, resolved: HistoryWriter, before: int) -> int:
    """Store what all of a user's histories share, in the order of the first; returns how many items this leaves out.

    Rows of ``resolved`` count from ``before``. A user whose histories share nothing gets no row.
    """
    first = list(Columns(*histories.row(known.row)).items())
    others = [set(Columns(*versions.row(row)).items()) for row in known.others.values()]
    shared = [item for item in first if all(item in other for other in others)]
    left_out = len(set(first).union(*others)) - len(shared)
    if not shared:
        known.items, known.dropped = 0, True
        return left_out
    columns = Columns(*map(list, zip(*(astuple(item) for item in shared), strict=True)))
    history = Utf8History.of(columns)
    known.row = before + resolved.append(history)
    known.items, known.hash = len(shared), HistoryHash.of_encoded(columns, history)
    return left_out
