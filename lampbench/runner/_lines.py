"""Files of JSON lines that only grow: the journal and the answers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lampbench.core import InputError


def append_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Append records, on disk before this returns; where that fails, none of them is left in the file.

    Raises:
        OSError: The file system refuses.
    """
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
    with path.open("ab", buffering=0) as stream:
        before = stream.seek(0, os.SEEK_END)
        try:
            view = memoryview(lines)
            while view:
                view = view[stream.write(view) :]
            os.fsync(stream.fileno())
        except BaseException:
            # Half a line would swallow the next one.
            stream.truncate(before)
            raise


def read_lines(path: Path, fields: Iterable[str]) -> list[dict[str, Any]]:
    """The records of all whole lines; a last line that an interruption tore is left out.

    Args:
        path: The file; where there is none, there are no records.
        fields: What every record must have.

    Raises:
        InputError: A whole line is no JSON object with these fields.
    """
    if not path.exists():
        return []
    needed = set(fields)
    records = []
    for number, line in enumerate(_whole(path.read_bytes()).split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, number, str(error)) from None
        if not isinstance(record, dict) or not needed <= set(record):
            raise _damaged(path, number, f"expected an object with {', '.join(sorted(needed))}")
        records.append(record)
    return records


def mend_lines(path: Path) -> None:
    """Cut off a last line that an interruption tore. Only for whoever alone writes the file."""
    if not path.exists():
        return
    raw = path.read_bytes()
    whole = _whole(raw)
    if len(whole) < len(raw):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))


def _whole(raw: bytes) -> bytes:
    return raw[: raw.rfind(b"\n") + 1]


def _damaged(path: Path, number: int, cause: str) -> InputError:
    return InputError(f"{path}: damaged in line {number} ({cause}); --force starts the run over")
