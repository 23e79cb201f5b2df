"""Scores that ``lampbench rescore`` added to a finished run, beside its row and never in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from lampbench.core import InputError, write_json
from lampbench.rows import LARGEST

RESCORED = "rescored.json"
_Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]


class AddedScore(Struct, frozen=True, kw_only=True, rename={"source": "from"}):
    """One metric of a finished run that its task does not name.

    Attributes:
        value: Over all queries; None if it is not finite, or the metric was skipped.
        ci95: The interval of ``value``, or None.
        macro: The mean of the users' own values, for metrics that have these.
        higher_is_better: The direction; None in files from before it was written.
        skipped: Why the metric could not be computed; empty if it was.
        source: The distribution or file that the metric comes from, and the encoder if it has one.
    """

    value: _Number | None
    ci95: tuple[_Number, _Number] | None = None
    macro: _Number | None = None
    higher_is_better: bool | None = None
    added: Literal[True] = True
    skipped: str = ""
    source: str


class _Rescored(Struct, frozen=True):
    run_id: str
    metrics: dict[str, AddedScore]


def read_added(folder: Path, run_id: str) -> dict[str, AddedScore]:
    """Metric -> what was added to the run in ``folder``; nothing if there is no such file, or it is another run's.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / RESCORED
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Rescored)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{path}: {error}; delete it, and run lampbench rescore again") from None
    return found.metrics if found.run_id == run_id else {}


def write_added(folder: Path, run_id: str, scores: Mapping[str, AddedScore]) -> None:
    """Write all that was added to the run in ``folder``."""
    values: dict[str, Any] = msgspec.to_builtins(_Rescored(run_id, dict(scores)))
    write_json(folder / RESCORED, values)
