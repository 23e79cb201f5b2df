"""Rows from bytes: decoded, brought to the current version, and checked; every fault with its place."""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from lampbench.core import InputError, digest
from lampbench.rows._types import LARGEST, NAMES, SCHEMA_VERSION, Identity, Row, RunRow

_RUN_ID_LENGTH = 12
# The depth to which settings can be written and compared; no run has deeper ones.
_DEEPEST = 50
_HASH, _ARTIFACTS = re.compile("[0-9a-f]{64}"), ("predictions.jsonl", "user_sums.json")
_FINISHED = msgspec.json.Decoder(Row)
_T = TypeVar("_T")
_WORDS = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}


class RowError(InputError):
    """A file is not a valid row, or not the record that it should be.

    Attributes:
        faults: What is wrong with it, one line each.
    """

    def __init__(self, path: Path, faults: list[str]) -> None:
        super().__init__(f"{path}: {faults[0]}")
        self.faults = faults


def read_row(path: Path) -> Row:
    """The row of a finished run, in the current version.

    Raises:
        RowError: It is missing or not valid JSON, or something is wrong with it.
    """
    content = _content(path)
    try:
        row = _FINISHED.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        row = _from_raw(path, content)
    faults = list(map(one_line, _own_faults(row)))
    if faults:
        raise RowError(path, faults)
    return row


def _from_raw(path: Path, content: bytes) -> Row:
    """A row of an earlier version, or with faults, all of which are named."""
    raw = _raw(path, content)
    faults = list(row_faults(raw))
    if faults:
        raise RowError(path, faults)
    return msgspec.convert(raw, Row)


def read_run_row(path: Path) -> RunRow:
    """The row of a run folder: a ``Row`` if the run is finished.

    Raises:
        RowError: It is missing or not valid JSON, or has another shape.
    """
    raw = _raw(path, _content(path))
    kind: type[RunRow] = Row if raw.get("status") == "success" else RunRow
    return _converted(path, raw, kind)


def read_record(path: Path, kind: type[_T]) -> _T:
    """A JSON file as a record.

    Raises:
        RowError: It is missing or not valid JSON, or has another shape.
    """
    return _converted(path, _parsed(path, _content(path)), kind)


def migrated(raw: Any) -> dict[str, Any]:
    """A parsed row of any version in the form of the current one; what was not measured at that time is null.

    Raises:
        InputError: It is not a row, or of an unknown version.
    """
    if not isinstance(raw, dict) or type(raw.get("schema_version")) is not int:
        raise InputError("not a row; expected an object with a schema_version")
    while (version := raw["schema_version"]) != SCHEMA_VERSION:
        step = _MIGRATIONS.get(version)
        if step is None:
            raise InputError(f"schema version {version}; this LampBench knows 1 to {SCHEMA_VERSION}")
        try:
            raw = step(raw)
        except (AttributeError, KeyError, TypeError):
            raise InputError(f"not a row of schema version {version}") from None
    row: dict[str, Any] = raw
    return row


def row_faults(raw: Any) -> Iterator[str]:
    """What is wrong with a parsed row of the current version, one line each.

    This covers its shape, values that cannot be used, and an id that is not its identity's.
    """
    faults = [f"{place}: {reason}" for place, reason in _unfit(raw)] or list(_shape_faults(raw, Row))
    if not faults:
        faults = list(_own_faults(msgspec.convert(raw, Row)))
    yield from map(one_line, faults)


def one_line(text: str) -> str:
    """The text without line breaks, which names in a row may contain."""
    return " ".join(text.splitlines())


def run_id(identity: Identity | Mapping[str, Any]) -> str:
    """The id that an identity gives a run."""
    try:
        return digest(identity.to_json() if isinstance(identity, Identity) else identity)[:_RUN_ID_LENGTH]
    except ValueError:
        return "(an identity with NaN has none)"


def row_schema() -> dict[str, Any]:
    """The JSON Schema of the row of a finished run."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Row)}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RowError(path, [str(error.strerror)]) from None


def _parsed(path: Path, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RowError(path, [f"not valid JSON ({error})"]) from None


def _raw(path: Path, content: bytes) -> dict[str, Any]:
    try:
        return migrated(_parsed(path, content))
    except RowError:
        raise
    except InputError as error:
        raise RowError(path, [one_line(str(error))]) from None


def _converted(path: Path, raw: Any, kind: type[_T]) -> _T:
    faults = list(_shape_faults(raw, kind))
    if faults:
        raise RowError(path, list(map(one_line, faults)))
    return msgspec.convert(raw, kind)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON value")


def _own_faults(row: Row) -> Iterator[str]:
    """What types cannot express: names that become folders, what can be hashed, and the id."""
    identity = row.identity
    for name, pattern in NAMES.items():
        found = getattr(identity, name)
        if not re.fullmatch(pattern, found):
            yield f"identity.{name}: {found[:80]!r} cannot name a folder of the leaderboards"
    if identity.decoding is not None and not isinstance(identity.decoding.get("mode"), str):
        yield "identity.decoding: expected a mode"
    if identity.backbone is not None and identity.decoding is None:
        yield "identity.decoding: expected object, found null, with a backbone"
    for name, found in row.data.source_hashes.items():
        if not _HASH.fullmatch(found):
            yield f"data.source_hashes.{name}: expected a SHA-256, found {found[:80]!r}"
    yield from (f"artifacts: missing required field {name}" for name in _ARTIFACTS if name not in row.artifacts)
    plain = identity.to_json()
    unfit = [f"identity.{place}: {reason}" for place, reason in _unfit(plain)]
    yield from unfit
    if not unfit and row.run_id != run_id(plain):
        yield f"run_id: {row.run_id!r}, but its identity hashes to {run_id(plain)!r}"


def _shape_faults(value: Any, kind: Any, place: str = "") -> Iterator[str]:
    """The innermost places at which a value is not of a type, with what was expected there."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        inner = [
            fault
            for name, part, own in _parts(value, kind)
            for fault in _shape_faults(part, own, f"{place}.{name}".lstrip("."))
        ]
        yield from inner or [f"{place}: {_said(str(error), value)}" if place else _said(str(error), value)]


def _parts(value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    """The parts of a value: name, part, and the type that it should have."""
    while get_origin(kind) in (Annotated, Union, types.UnionType):
        kind = get_args(kind)[0]
    if get_origin(kind) is dict and isinstance(value, dict):
        yield from ((key, part, get_args(kind)[1]) for key, part in value.items())
    elif get_origin(kind) is tuple and isinstance(value, list):
        yield from ((str(place), part, get_args(kind)[0]) for place, part in enumerate(value))
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        yield from ((own.name, value[own.name], own.type) for own in msgspec.structs.fields(kind) if own.name in value)


def _said(message: str, value: Any) -> str:
    """An error of msgspec in the words of these messages."""
    message = re.sub(r" - at `\$.*$", "", message, flags=re.DOTALL).replace("`", "")
    if message.startswith("Expected"):
        message = re.sub(r"\b(int|float|str|bool)\b", lambda name: _WORDS[name[0]], message)
        message = message.replace(" | ", " or ").replace(", got", ", found").replace("= 0.0", "= 0")
        if ", found" not in message and not isinstance(value, (dict, list)):
            message += f", found {json.dumps(value)[:80]}"
    message = message.removeprefix("Object ").replace("Invalid enum value", "unknown value")
    return message[0].lower() + message[1:]


def _unfit(value: Any, depth: int = 1) -> Iterator[tuple[str, str]]:
    """Places of values that cannot be used in calculations or written to a file, and why."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, (int, float)):
            if not abs(inner) <= LARGEST:
                finite = isinstance(inner, int) or math.isfinite(inner)
                yield str(key), "too large a number" if finite else f"{inner} is not a number"
        elif isinstance(inner, str):
            if not (inner.isascii() or _is_text(inner)):
                yield str(key), f"{inner[:80]!r} holds half of a surrogate pair, which is not text"
        elif isinstance(inner, (dict, list, tuple)):
            if depth == _DEEPEST:
                yield str(key), "nested too deeply"
            else:
                for place, reason in _unfit(inner, depth + 1):
                    yield f"{key}.{place}", reason


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_1(row: dict[str, Any]) -> dict[str, Any]:
    """Version 2 has intervals, averages over users as estimates, and leak checks."""
    metrics = {
        key: {**metric, "macro": None if metric["macro"] is None else _unsure(metric["macro"])}
        for key, metric in (row.get("metrics") or {}).items()
    }
    return {**row, "schema_version": 2, "metrics": metrics or None, "swap": None, "data": {**row["data"], "leaks": {}}}


def _unsure(value: float) -> dict[str, Any]:
    return {"value": value, "ci95": None, "stderr": None}


_MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
