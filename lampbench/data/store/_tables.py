"""The columnar form of a split: Arrow streams that ``datasets.Dataset.from_file`` opens as well.

::

    histories.arrow   items: list<struct<id, source, target, date>>   a history a row, oldest item first
    resolved.arrow    the same, for users whose questions came with different profiles
    users.arrow       id, row, items, history, texts, queries: list<struct<id, date, text, gold>>
    manifest.json     what it was made from; written last

``row`` counts through histories.arrow and on through resolved.arrow. ``history`` and ``texts`` are
SHA-256 over the whole history and over its texts alone.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from lampbench.core import LabelledQuery, digest
from lampbench.data.files import Columns

HISTORIES, RESOLVED, USERS, MANIFEST = "histories.arrow", "resolved.arrow", "users.arrow", "manifest.json"

# Characters that wait in memory before they are written as one batch.
_BATCH_CHARACTERS = 16 << 20

_ITEM = pa.struct([(name, pa.string()) for name in ("id", "source", "target", "date")])
_QUERY = pa.struct([(name, pa.string()) for name in ("id", "date", "text", "gold")])
HISTORY_SCHEMA = pa.schema([("items", pa.list_(_ITEM))])
USER_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("items", pa.int64()),
        ("history", pa.string()),
        ("texts", pa.string()),
        ("queries", pa.list_(_QUERY)),
    ]
)


@dataclass(frozen=True, slots=True)
class HistoryHash:
    """What names a history.

    Attributes:
        whole: SHA-256 over ids, dates and texts.
        texts: SHA-256 over texts alone: equal for one person under two ids.
    """

    whole: str
    texts: str

    @classmethod
    def of(cls, columns: Columns) -> HistoryHash:
        """Of a history by columns."""
        written = json.dumps([columns.sources, columns.targets], ensure_ascii=False, separators=(",", ":"))
        texts = hashlib.sha256(written.encode()).hexdigest()
        return cls(digest([texts, columns.ids, columns.dates]), texts)


class TableWriter:
    """Writes a table into a file, or into memory where ``path`` is None."""

    def __init__(self, path: Path | None, schema: pa.Schema) -> None:
        self._path = path
        self._sink: Any = pa.BufferOutputStream() if path is None else pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch."""
        self._stream.write_batch(batch)

    def finish(self) -> pa.Table:
        """End the stream; the table, mapped into memory."""
        self._stream.close()
        if self._path is None:
            return pa.ipc.open_stream(self._sink.getvalue()).read_all()
        self._sink.close()
        return open_table(self._path)

    def abandon(self) -> None:
        """Let go of a file that will not be finished."""
        self._sink.close()


class HistoryWriter:
    """Writes histories, a batch at a time."""

    def __init__(self, path: Path | None) -> None:
        self._table = TableWriter(path, HISTORY_SCHEMA)
        self._lengths: list[int] = []
        self._columns = Columns([], [], [], [])
        self._characters = 0
        self.rows = 0

    def append(self, columns: Columns) -> int:
        """Add a history; its row."""
        for kept, more in zip(self._columns, columns, strict=True):
            kept.extend(more)
        self._lengths.append(len(columns.ids))
        self._characters += sum(map(len, columns.sources)) + sum(map(len, columns.targets))
        self.rows += 1
        if self._characters > _BATCH_CHARACTERS:
            self._flush()
        return self.rows - 1

    def finish(self) -> pa.Table:
        """Write what waits; the table."""
        if self._lengths:
            self._flush()
        return self._table.finish()

    def abandon(self) -> None:
        """Let go of a file that will not be finished."""
        self._table.abandon()

    def _flush(self) -> None:
        batch = pa.record_batch([_lists(self._lengths, _structs(self._columns, _ITEM))], schema=HISTORY_SCHEMA)
        self._table.write(batch)
        self._lengths, self._columns, self._characters = [], Columns([], [], [], []), 0


def user_batch(
    ids: Sequence[str],
    rows: Sequence[int],
    items: Sequence[int],
    hashes: Sequence[HistoryHash],
    queries: Sequence[Sequence[LabelledQuery]],
) -> pa.RecordBatch:
    """Users as one batch."""
    flat = [entry for own in queries for entry in own]
    columns = [
        [entry.query.id for entry in flat],
        [entry.query.date for entry in flat],
        [entry.query.text for entry in flat],
        [entry.target for entry in flat],
    ]
    arrays = [
        pa.array(ids, pa.string()),
        pa.array(rows, pa.int64()),
        pa.array(items, pa.int64()),
        pa.array([entry.whole for entry in hashes], pa.string()),
        pa.array([entry.texts for entry in hashes], pa.string()),
        _lists([len(own) for own in queries], _structs(columns, _QUERY)),
    ]
    return pa.record_batch(arrays, schema=USER_SCHEMA)


def open_table(path: Path) -> pa.Table:
    """A table mapped from a file: its text is read from disk when it is looked at."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


class ListColumn:
    """A column of lists of structs, read a row at a time."""

    def __init__(self, table: pa.Table, name: str) -> None:
        self._chunks = table.column(name).chunks
        self._starts = [0, *accumulate(len(chunk) for chunk in self._chunks)]

    def row(self, number: int, start: int = 0, stop: int | None = None) -> list[list[str]]:
        """The fields of one row's structs ``start`` to ``stop``, a list a field."""
        chunk = bisect_right(self._starts, number) - 1
        structs = self._chunks[chunk].slice(number - self._starts[chunk], 1).flatten()
        window = structs.slice(start, None if stop is None else stop - start)
        return [column.to_pylist() for column in window.flatten()]


def file_sizes(folder: Path) -> Mapping[str, int]:
    """Bytes of every table in a folder."""
    return {name: (folder / name).stat().st_size for name in (HISTORIES, RESOLVED, USERS)}


def _structs(columns: Iterable[Sequence[str]], kind: pa.StructType) -> pa.StructArray:
    return pa.StructArray.from_arrays([pa.array(column, pa.string()) for column in columns], fields=list(kind))


def _lists(lengths: Sequence[int], values: pa.StructArray) -> pa.ListArray:
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
