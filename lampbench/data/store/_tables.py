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

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lampbench.core import LabelledQuery
from lampbench.data.files import Columns

# What an array and a bytes object take in addition to their content.
_OVERHEAD = 200


@dataclass(frozen=True, slots=True)
class HistoryHash:
    """What identifies a history.

    Attributes:
        whole: SHA-256 over ids, dates and texts.
        texts: SHA-256 over texts alone, in the order of dates: equal for one person under two ids.
    """

    whole: str
    texts: str

    @classmethod
    def of(cls, columns: Columns) -> HistoryHash:
        """Of a history by columns."""
        return cls.of_encoded(columns, Utf8History.of(columns))

    @classmethod
    def of_encoded(cls, columns: Columns, history: Utf8History) -> HistoryHash:
        """Of a history that is encoded already."""
        texts = in_order = _sha256(history.sources, history.targets)
        # Files may have items of equal date in any order; one person's texts must still be equal.
        order = sorted(
            range(len(columns.ids)), key=lambda i: (columns.dates[i], columns.sources[i], columns.targets[i])
        )
        if order != list(range(len(order))):
            moved = ([column[i] for i in order] for column in (columns.sources, columns.targets))
            texts = _sha256(*map(Utf8Column.of, moved))
        whole = hashlib.sha256(in_order.digest() + _sha256(history.ids, history.dates).digest())
        return cls(whole.hexdigest(), texts.hexdigest())


@dataclass(frozen=True, slots=True)
class Utf8Column:
    """Strings as joined bytes and the bytes of each; together they can be read in one way only."""

    data: bytes
    sizes: np.ndarray[Any, np.dtype[np.int32]]

    @classmethod
    def of(cls, strings: Sequence[str]) -> Utf8Column:
        """Encode; raises UnicodeEncodeError for halves of surrogate pairs."""
        data = "".join(strings).encode()
        sizes = map(len, strings) if data.isascii() else (len(string.encode()) for string in strings)
        return cls(data, np.fromiter(sizes, dtype="<i4", count=len(strings)))

    @classmethod
    def joined(cls, columns: Sequence[Utf8Column]) -> Utf8Column:
        """Several columns, one after another."""
        return cls(b"".join(column.data for column in columns), np.concatenate([column.sizes for column in columns]))

    def to_arrow(self) -> pa.StringArray:
        """The strings as an Arrow array over these bytes."""
        offsets = np.zeros(len(self.sizes) + 1, dtype=np.int32)
        np.cumsum(self.sizes, out=offsets[1:])
        return pa.StringArray.from_buffers(len(self.sizes), pa.py_buffer(offsets), pa.py_buffer(self.data))


class Utf8History(NamedTuple):
    """A history by encoded columns."""

    ids: Utf8Column
    sources: Utf8Column
    targets: Utf8Column
    dates: Utf8Column

    @classmethod
    def of(cls, columns: Columns) -> Utf8History:
        """Encode; raises UnicodeEncodeError for halves of surrogate pairs."""
        return cls(*map(Utf8Column.of, columns))

    @property
    def size(self) -> int:
        """Bytes in memory, roughly."""
        return sum(len(column.data) + column.sizes.nbytes + _OVERHEAD for column in self)


def _sha256(*columns: Utf8Column) -> Any:
    result = hashlib.sha256()
    for column in columns:
        result.update(len(column.sizes).to_bytes(8, "little"))
        result.update(column.sizes.tobytes())
        result.update(column.data)
    return result


# Of a user who has none.
NO_HISTORY = HistoryHash.of(Columns([], [], [], []))


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
    """Writes a table into a file, or into memory if ``path`` is None."""

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
        """Close a file that will not be finished."""
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
    asked = pa.StructArray.from_arrays([_strings(column) for column in columns], fields=list(_QUERY))
    arrays = [
        _strings(ids),
        _integers(rows, pa.int64()),
        _integers(items, pa.int64()),
        _strings([entry.whole for entry in hashes]),
        _strings([entry.texts for entry in hashes]),
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
        lists, place = self._chunks[chunk], number - self._starts[chunk]
        # ListArray.flatten does this, and imports pyarrow.compute, which takes longer than reading a small suite.
        first, end = (lists.offsets[place + side].as_py() for side in (0, 1))
        structs = lists.values.slice(first, end - first)
        window = structs.slice(start, None if stop is None else stop - start)
        return [column.to_pylist() for column in window.flatten()]


def file_sizes(folder: Path) -> Mapping[str, int]:
    """Bytes of every table in a folder."""
    return {name: (folder / name).stat().st_size for name in (HISTORIES, RESOLVED, USERS)}


def _lists(lengths: Sequence[int], values: pa.StructArray) -> pa.ListArray:
    return pa.ListArray.from_arrays(_integers([0, *accumulate(lengths)], pa.int32()), values)


# pa.array imports pandas, to see whether it was given a Series; that takes longer than a small suite.


def _strings(values: Sequence[str]) -> pa.StringArray:
    return Utf8Column.of(values).to_arrow()


def _integers(values: Sequence[int], kind: pa.DataType) -> pa.Array:
    numbers = np.array(values, dtype=kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])
