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
    if not isinstance(row, dict) or not isinstance(row.get("schema_version"), int):
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
        row = step(row)
    return row


def row_faults(row: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a row by itself: its schema, numbers that are not finite, an id that is not its identity's."""
    for error in sorted(_validator().iter_errors(row), key=lambda error: list(map(str, error.instance_path))):
        place = ".".join(map(str, error.instance_path)) or "the row"
        yield f"{place}: {error.message.splitlines()[0][:200]}"
    for place, value in _leaves(row):
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{place}: {value} is no number"
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


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{place}.{number}")
    else:
        yield place, value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON value")
