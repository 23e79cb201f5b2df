"""Folders that LampBench writes to: there, writable, with room left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lampbench.core import CACHE_VARIABLE, cache_folder
from lampbench.doctor._causes import Causes
from lampbench.doctor._child import Outcome
from lampbench.doctor._hub import hub_cache, is_offline
from lampbench.doctor._report import Finding, Mark

_GIGABYTE = 10**9
_LAST_RESORT = "mend what else is wrong; where nothing is, install LampBench again"


@dataclass(frozen=True)
class Place:
    """A folder that something is written to.

    Attributes:
        name: What it is called in the report.
        folder: Where it is.
        room: The bytes below which it counts as nearly full.
        move: How to have it elsewhere.
        needed: Whether it is a problem where it cannot be used.
    """

    name: str
    folder: Callable[[], Path]
    room: int
    move: str
    needed: bool = True


_PLACES = (
    Place("cache", cache_folder, _GIGABYTE, f"name another folder in {CACHE_VARIABLE}"),
    Place("hub cache", hub_cache, _GIGABYTE, "name another folder in HF_HOME"),
    Place("temporary", lambda: Path(tempfile.gettempdir()), _GIGABYTE // 10, "name another folder in TMPDIR"),
    Place("here", Path.cwd, _GIGABYTE // 10, "start runs elsewhere or with --out", needed=False),
)


def folders(outcomes: Mapping[str, Outcome], causes: Causes) -> Iterator[Finding]:
    """Each place, and the bundled suite."""
    for place in _PLACES:
        # A cache that others filled, for machines that fetch nothing, need not be writable.
        shared = place.folder is hub_cache and is_offline()
        yield _finding(place, "problem" if place.needed and not shared else "note")
    yield _model(outcomes["model"], causes)
    yield _data(outcomes["data"], causes)


def _finding(place: Place, bad: Mark) -> Finding:
    try:
        folder = place.folder()
    except (OSError, RuntimeError) as error:  # no home, no usable temporary folder
        return Finding(place.name, "", str(error), bad, place.move)
    existing = _nearest(folder)
    free = shutil.disk_usage(existing).free
    refused = why_not_writable(existing)
    facts = {"folder": str(folder), "exists": folder.exists(), "writable": refused is None, "free_bytes": free}
    there = "" if folder.exists() else ", will be made when it is needed"
    text = f"{free / 1e9:,.1f} GB free{there}"
    if refused:
        return Finding(place.name, str(folder), f"cannot be written: {refused}", bad, place.move, facts)
    if free < place.room:
        text = f"nearly full: {text}"
        return Finding(place.name, str(folder), text, bad, f"free some space, or {place.move}", facts)
    return Finding(place.name, str(folder), text, facts=facts)


def why_not_writable(folder: Path) -> str | None:
    """What happens to a file that is written there; None where it can be. Nothing is left behind."""
    if not folder.is_dir():
        return f"{folder} is a file, not a folder"
    try:
        with tempfile.TemporaryFile(prefix=".lampbench-doctor-", dir=folder) as stream:
            stream.write(b"x" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None


def _nearest(folder: Path) -> Path:
    """The folder itself, or what is there of its parents."""
    return next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)


def _model(outcome: Outcome, causes: Causes) -> Finding:
    name, facts = "mini model", dict(outcome.facts)
    if outcome.error:
        return causes.finding(name, outcome, f"does not work: {outcome.error}", _LAST_RESORT)
    changed = ", ".join(facts["changed"])
    if changed:
        text = f"{changed} is not the file that LampBench came with"
        return Finding(name, facts["folder"], text, "problem", "install LampBench again", facts)
    return Finding(name, facts["folder"], "loads and answers, its hash is right", facts=facts)


def _data(outcome: Outcome, causes: Causes) -> Finding:
    facts = dict(outcome.facts)
    if outcome.error:
        return causes.finding("mini data", outcome, f"does not work: {outcome.error}", _LAST_RESORT)
    return Finding("mini data", f"{facts['task']} {facts['hash'][:12]}", f"{facts['users']} users", facts=facts)
