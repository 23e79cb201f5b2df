"""Rows as files: read, brought to the current version, checked against the shipped schema."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from lampbench.core import InputError, digest
from lampbench.runner import SCHEMA_VERSION

_RUN_ID_LENGTH = 12
# What is within both bounds can be computed with and written; no run measures or nests more.
LARGEST, _DEEPEST = 1e300, 50


def read_row(path: Path) -> dict[str, Any]:
    """A row file's content, in the current version.

    Raises:
        InputError: It is missing, no JSON, no row, or of a version that this LampBench does not know.
    """
    try:
        row = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(row, dict) or type(row.get("schema_version")) is not int:
        raise InputError(f"{path}: not a row; expected an object with a schema_version")
    return migrated(row, str(path))


def migrated(row: dict[str, Any], where: str) -> dict[str, Any]:
    """A row of an earlier version in the form of the current one; what was not measured then is null."""
    while row["schema_version"] != SCHEMA_VERSION:
        step = _MIGRATIONS.get(row["schema_version"])
        if step is None:
            raise InputError(
                f"{where}: schema version {row['schema_version']}; this LampBench knows 1 to {SCHEMA_VERSION}"
            )
        try:
            row = step(row)
        except (AttributeError, KeyError, TypeError):
            raise InputError(f"{where}: not a row of schema version {row['schema_version']}") from None
    return row


def row_faults(row: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a row by itself, a line each: its schema, values of no use, an id not its identity's."""
    yield from map(one_line, _faults(row))


def one_line(text: str) -> str:
    """The text without line breaks, which names in a row may hold."""
    return " ".join(text.splitlines())


def _faults(row: Mapping[str, Any]) -> Iterator[str]:
    unfit = [f"{place}: {reason}" for place, reason in _unfit(row)]
    yield from unfit
    if unfit:
        return
    for error in sorted(_validator().iter_errors(row), key=lambda error: list(map(str, error.instance_path))):
        place = ".".join(map(str, error.instance_path)) or "the row"
        yield f"{place}: {error.message.splitlines()[0][:200]}"
    if isinstance(row.get("identity"), dict) and row.get("run_id") != run_id(row["identity"]):
        yield f"run_id: {row.get('run_id')!r}, but its identity hashes to {run_id(row['identity'])!r}"


def run_id(identity: Mapping[str, Any]) -> str:
    """The id that an identity gives a run."""
    try:
        return digest(identity)[:_RUN_ID_LENGTH]
    except ValueError:
        return "(an identity with NaN has none)"


@cache
def row_schema() -> Mapping[str, Any]:
    """The JSON Schema of a row."""
    text = resources.files("lampbench.leaderboard").joinpath("row.schema.json").read_text(encoding="utf-8")
    schema: Mapping[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> Any:
    from jsonschema_rs import validator_for

    return validator_for(dict(row_schema()))


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


def _unfit(value: Any, depth: int = 1) -> Iterator[tuple[str, str]]:
    """Values that nothing can be computed from, or that no file can hold, and where they are."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, (int, float)):
            if not abs(inner) <= LARGEST:
                finite = isinstance(inner, int) or math.isfinite(inner)
                yield str(key), "too large a number" if finite else f"{inner} is no number"
        elif isinstance(inner, str):
            if not (inner.isascii() or _is_text(inner)):
                yield str(key), f"{inner[:80]!r} holds half of a surrogate pair, which is no text"
        elif isinstance(inner, (dict, list)):
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


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON value")
