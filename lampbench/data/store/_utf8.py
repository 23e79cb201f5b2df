"""Histories as UTF-8: encoded once, for the hash and for the table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lampbench.data.files import Columns

# What an array and a bytes object take beside their content.
_OVERHEAD = 200


@dataclass(frozen=True, slots=True)
class HistoryHash:
    """What names a history.

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
        # Files may hold items of equal date in any order; one person's texts are the same all the same.
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
