"""JSON files: small ones whole, JSON lists and JSON Lines of any size record by record."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from lampbench.core import InputError

_BLOCK = 4 << 20
# Far more than any user wrote; a larger record is a damaged file and must not fill the memory.
_LARGEST_RECORD = 64 << 20
_SPACE = " \t\r\n"
# The byte order mark that some editors write.
_MARK = "\ufeff"
# The longest token that a block's end can cut in two, strings apart: \ud83d\ude00.
_CUT_TOKEN = 12
_SHOWN = 80
_FETCH_AGAIN = "is the file damaged or cut short? Fetch it again"


def read_json(path: Path) -> tuple[Any, str]:
    """A JSON file's value and the SHA-256 of its bytes.

    Raises:
        InputError: The file is missing, unreadable, not UTF-8, or not JSON (cut files included).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        text = raw.decode("utf-8").removeprefix(_MARK)
        return json.loads(text, parse_constant=_refuse), hashlib.sha256(raw).hexdigest()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: not valid JSON at {where} ({error.msg}); {_FETCH_AGAIN}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {_reason(error)}") from None


def read_records(path: Path) -> Iterator[Any]:
    """The records of a file, one at a time; memory does not grow with the file.

    The file is one JSON list, or JSON Lines: objects after another, with nothing but white space between them.

    Raises:
        InputError: As ``read_json``, or the file is neither; the message names record and byte.
    """
    try:
        with path.open("rb") as stream:
            yield from _Records(path, stream)
    except OSError as error:
        raise unreadable(path, error) from None


def list_file(path: Path) -> Path:
    """``path``, or the file beside it that ends in ``.jsonl`` if only that exists."""
    lines = path.with_suffix(".jsonl")
    return lines if lines.exists() and not path.exists() else path


def unreadable(path: Path, error: OSError) -> InputError:
    """The error for a file that the system cannot read."""
    return InputError(f"{path}: {'no such file' if isinstance(error, FileNotFoundError) else error.strerror}")


def kind(value: Any) -> str:
    """A JSON value in a few words, for messages."""
    if value is None:
        return "missing"
    if isinstance(value, (list, dict, str)) and not value:
        return f"an empty {type(value).__name__}"
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__} ({str(value)[:40]!r})"


def shown(value: Any) -> str:
    """A value as in the file, shortened for a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class _Records:
    """A window over the file's text; the standard library's parser takes one record after another from it."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path = path
        self._stream = stream
        self._text = ""
        self._position = 0
        self._byte = 0
        self._ended = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._json = json.JSONDecoder(parse_constant=_refuse)

    def __iter__(self) -> Iterator[Any]:
        if self._next() == _MARK:
            self._position += 1
        first = self._next()
        if first == "{":
            yield from self._lines()
        elif first == "[":
            self._position += 1
            yield from self._list()
        else:
            found = repr(first) if first else "nothing"
            raise InputError(
                f"{self._path}: expected a JSON list of records, or JSON Lines, found {found} at byte {self._here()}"
            )

    def _list(self) -> Iterator[Any]:
        number = 0
        if self._next() == "]":
            self._position += 1
        else:
            while True:
                yield self._record(number)
                number += 1
                separator = self._next()
                self._position += 1
                if separator == "]":
                    break
                if separator != ",":
                    self._position -= 1
                    self._fail(f"after {number} records", "expected ',' or ']' after a record")
        if self._next():
            self._fail(f"after the list of {number} records", "there is something after it")

    def _lines(self) -> Iterator[Any]:
        number = 0
        while first := self._next():
            if first != "{":
                self._fail(f"after {number} records", "expected another object, as JSON Lines have")
            yield self._record(number)
            number += 1

    def _record(self, number: int) -> Any:
        where = f"in record {number}"
        if not self._next():
            self._fail(where, "the file ends")
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error):
                    self._position = error.pos
                    self._fail(where, error.msg)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{self._path}: {where}, at byte {self._here()}: {_reason(error)}") from None
            else:
                # A number may continue in the next block: "1" and then ".5", or "1e-" and then "5".
                if end + 2 < len(self._text) or self._ended:
                    self._position = end
                    return value
            if len(self._text) - self._position > _LARGEST_RECORD:
                megabytes = _LARGEST_RECORD >> 20
                self._fail(where, f"it has more than {megabytes} MiB, which no user's record has")
            self._read()

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether reading more of the file could resolve the error."""
        at_the_end = error.pos >= len(self._text) - _CUT_TOKEN or error.msg.startswith("Unterminated string")
        return at_the_end and not self._ended

    def _next(self) -> str:
        """The next character that is no white space, not yet passed; empty at the end of the file."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if character not in _SPACE:
                    return character
                self._position += 1
            if self._ended:
                return ""
            self._read()

    def _read(self) -> None:
        """Let the window begin at the position, and read at least as much again as is in it."""
        rest = self._text[self._position :]
        before = self._stream.tell() - len(self._decoder.getstate()[0])
        self._byte = before - len(rest.encode())
        block = self._stream.read(max(_BLOCK, len(rest)))
        self._ended = not block
        try:
            self._text = rest + self._decoder.decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            raise InputError(f"{self._path}: not UTF-8 at byte {before + error.start}") from None
        self._position = 0

    def _here(self) -> int:
        return self._byte + len(self._text[: self._position].encode())

    def _fail(self, where: str, reason: str) -> NoReturn:
        raise InputError(f"{self._path}: not valid JSON {where}, at byte {self._here()} ({reason}); {_FETCH_AGAIN}")


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else f"not valid JSON ({str(error).split(';')[0]})"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON value")
