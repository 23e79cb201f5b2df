"""Rows of tables: CSV, JSON Lines, Parquet, and folders of ``datasets``; one at a time, whatever their size."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from lampbench.core import InputError, first_line, unknown_name
from lampbench.data.files import kind, read_records, unreadable

UTF_8 = "utf-8"

_DELIMITERS = (",", ";", "\t", "|")
# A longer cell is the sign of a quote that is never closed.
_LONGEST_CELL = 16 << 20
_BATCH = 2048
_FORMS = ".csv, .tsv, .jsonl, .json, .parquet, or a folder that datasets saved"
_MAGIC = {
    b"PK\x03\x04": "a spreadsheet or an archive (zip); save it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of an old kind; save it as CSV",
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"%PDF": "a PDF; expected a table",
}
_PARQUET = b"PAR1"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Attributes:
        user: Who wrote the row.
        sources: What is asked about, in the order of the task's source fields.
        target: The answer.
        date: When; None if rows are in time order.
    """

    user: str
    sources: tuple[str, ...]
    target: str
    date: str | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """Every column, once."""
        return tuple(dict.fromkeys([self.user, *self.sources, self.target, *([self.date] if self.date else [])]))


@dataclass(frozen=True)
class RowFile:
    """A table in a file or folder.

    Attributes:
        path: Where it is.
        encoding: Of a CSV file, as ``codecs`` calls it.
        batch: How many rows of a Parquet file are in memory at a time.
    """

    path: Path
    encoding: str = UTF_8
    batch: int = _BATCH

    def rows(self, columns: Columns) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """Each row's place in the file, and the values of the columns; or what is wrong with the row.

        Raises:
            InputError: The file cannot be read, is damaged, or has no such column (the nearest is named).
        """
        try:
            yield from self._reader()(columns)
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _reader(self) -> Any:
        path = self.path
        if path.is_dir():
            return self._saved
        with path.open("rb") as stream:
            start = stream.read(4)
        for magic, what in _MAGIC.items():
            if start.startswith(magic):
                raise InputError(f"{path}: this is {what}")
        suffix = path.suffix.lower()
        if start == _PARQUET or suffix == ".parquet":
            return self._parquet
        if not start:
            raise InputError(f"{path}: the file is empty")
        readers = {".csv": self._csv, ".tsv": self._csv, ".txt": self._csv}
        readers |= dict.fromkeys((".jsonl", ".ndjson", ".json"), self._json)
        if suffix not in readers:
            raise InputError(f"{path}: unknown kind of file {suffix!r}; expected {_FORMS}")
        return readers[suffix]

    def _csv(self, columns: Columns) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        path, encoding = self.path, self.encoding
        with path.open("rb") as stream:
            if stream.read(2) in _UTF_16 and encoding == UTF_8:
                raise InputError(f"{path}: the file is UTF-16; name its encoding: --encoding utf-16")
        before = csv.field_size_limit(_LONGEST_CELL)
        number = 0
        try:
            with path.open(encoding="utf-8-sig" if encoding == UTF_8 else encoding, newline="") as text:
                first = text.readline()
                text.seek(0)
                delimiter = max(_DELIMITERS, key=first.count)
                reader = csv.reader(text, delimiter=delimiter, strict=True)
                header = [name.strip() for name in next(reader, [])]
                places = {name: header.index(name) for name in self._checked(columns, header)}
                for cells in reader:
                    # A row ends where it says; texts may have several lines.
                    where, number = f"line {number + 1 if number else 2}", reader.line_num
                    if not cells:
                        continue
                    if len(cells) != len(header):
                        yield where, f"it has {len(cells)} cells, and the header has {len(header)}"
                    else:
                        yield where, {name: cells[place] for name, place in places.items()}
        except UnicodeError:
            raise InputError(f"{path}: {_undecodable(path, encoding)}") from None
        except csv.Error as error:
            raise InputError(
                f"{path}: no valid CSV after line {max(number, 1)}: {error}; is a quote never closed?"
            ) from None
        finally:
            csv.field_size_limit(before)

    def _json(self, columns: Columns) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        checked = False
        for number, record in enumerate(read_records(self.path), 1):
            where = f"record {number}"
            if not isinstance(record, dict):
                yield where, f"expected an object, found {kind(record)}"
                continue
            if not checked:
                # Later records may leave out a field that has no value.
                self._checked(columns, list(record))
                checked = True
            yield where, {name: record.get(name) for name in columns.all}

    def _parquet(self, columns: Columns) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.path) as file:
                names = self._checked(columns, file.schema_arrow.names)
                number = 0
                for batch in file.iter_batches(self.batch, columns=list(names)):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"row {number}", row
        except pa.ArrowException as error:
            raise InputError(f"{self.path}: no valid Parquet: {str(error).splitlines()[0]}") from None

    def _saved(self, columns: Columns) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        import datasets

        try:
            found = datasets.load_from_disk(str(self.path))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: no folder that datasets saved: {first_line(error)}") from None
        if isinstance(found, datasets.DatasetDict):
            raise InputError(f"{self.path}: it has the splits {', '.join(found)}; name the folder of one of them")
        names = list(self._checked(columns, found.column_names))
        for number, row in enumerate(found.select_columns(names), 1):
            yield f"row {number}", row

    def _checked(self, columns: Columns, found: Sequence[str]) -> tuple[str, ...]:
        """The columns; raises InputError if one is missing or occurs twice."""
        for name in columns.all:
            if name not in found:
                raise unknown_name(f"column of {self.path}", name, found)
            if found.count(name) > 1:
                raise InputError(f"{self.path}: the column {name!r} occurs {found.count(name)} times")
        return columns.all


def row_files(paths: Sequence[Path], encoding: str = UTF_8) -> list[RowFile]:
    """The tables at the paths; raises InputError if there is nothing at one of them, or no such encoding."""
    try:
        # One name for all its spellings: a byte order mark is expected in UTF-8 alone.
        encoding = codecs.lookup(encoding).name
        "".encode(encoding)
    except (LookupError, ValueError):
        raise InputError(f"--encoding {encoding}: no such encoding; utf-8, cp1252 and utf-16 are some") from None
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    return [RowFile(path, encoding) for path in paths]


def text_of(value: Any) -> str | None:
    """A cell as text, without white space at its ends; empty if the cell is, None if it holds something else."""
    if value is None:
        return ""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value).strip()
    return None


def _undecodable(path: Path, encoding: str) -> str:
    """The first line that is not in the encoding."""
    if encoding == UTF_8:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    line.decode(UTF_8)
                except UnicodeDecodeError as error:
                    byte = f"0x{line[error.start]:02x}"
                    return (
                        f"line {number} is not UTF-8 (byte {byte}); save the file as UTF-8, or name the encoding of "
                        "all of it: --encoding cp1252"
                    )
    return f"it is not {encoding}; name its encoding: --encoding utf-8"
