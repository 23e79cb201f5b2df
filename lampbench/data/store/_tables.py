"""The columnar form of a split: Arrow streams that ``datasets.Dataset.from_file`` opens as well.

::

    histories.arrow   items: list<struct<id, source, target, date>>   a history a row, oldest item first
    resolved.arrow    the same, for users whose questions came with different profiles
    users.arrow       id, row, items, history, texts, queries: list<struct<id, date, text, gold>>
    manifest.json     what it was made from; written last

``row`` counts through histories.arrow and on through resolved.arrow. ``history`` and ``texts`` are
the two hashes of a ``HistoryHash``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from lampbench.core import LabelledQuery
from lampbench.data.store._utf8 import HistoryHash, Utf8Column, Utf8History

HISTORIES, RESOLVED, USERS, MANIFEST = "histories.arrow", "resolved.arrow", "users.arrow", "manifest.json"

# Bytes that wait in memory before they are written as one batch.
_BATCH_BYTES = 16 << 20

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
        self._waiting: list[Utf8History] = []
        self._bytes = 0
        self.rows = 0

    def append(self, history: Utf8History) -> int:
        """Add a history; its row."""
        self._waiting.append(history)
        self._bytes += history.size
        self.rows += 1
        if self._bytes > _BATCH_BYTES:
            self._flush()
        return self.rows - 1

    def finish(self) -> pa.Table:
        """Write what waits; the table."""
        if self._waiting:
            self._flush()
        return self._table.finish()

    def abandon(self) -> None:
        """Let go of a file that will not be finished."""
        self._table.abandon()

    def _flush(self) -> None:
        columns = [Utf8Column.joined(column).to_arrow() for column in zip(*self._waiting, strict=True)]
        items = pa.StructArray.from_arrays(columns, fields=list(_ITEM))
        lengths = [len(history.ids.sizes) for history in self._waiting]
        self._table.write(pa.record_batch([_lists(lengths, items)], schema=HISTORY_SCHEMA))
        self._waiting, self._bytes = [], 0


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
    asked = pa.StructArray.from_arrays([pa.array(column, pa.string()) for column in columns], fields=list(_QUERY))
    arrays = [
        pa.array(ids, pa.string()),
        pa.array(rows, pa.int64()),
        pa.array(items, pa.int64()),
        pa.array([entry.whole for entry in hashes], pa.string()),
        pa.array([entry.texts for entry in hashes], pa.string()),
        _lists([len(own) for own in queries], asked),
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


def _lists(lengths: Sequence[int], values: pa.StructArray) -> pa.ListArray:
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
