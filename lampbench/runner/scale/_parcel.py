"""What a worker made, as a folder: laid out as a run folder, whole or absent, every file named by its hash.

::

    shards/<name>/
        manifest.json       what the worker found, and SHA-256 of every other file
        journal.jsonl       what it cost
        predictions.jsonl   answers
        state/users/…       states
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lampbench.core import write_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What is in a parcel.

    Attributes:
        id: Of this attempt; no other has it.
        parameters: As the method reports them.
        checks: What isolation guards found.
        guarded: About whom.
        answers: Query id -> output of a unit that only asks.
        said: Lines for the user.
        files: Path -> SHA-256.
    """

    id: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    guarded: Sequence[str] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    said: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def found(self) -> dict[str, Any]:
        """What the journal keeps of it."""
        return {"parameters": dict(self.parameters), "checks": dict(self.checks), "guarded": list(self.guarded)}


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder whose other files are all there."""
    value = {**asdict(manifest), "files": {name: _sha256(folder / name) for name in _files(folder)}}
    write_json(folder / MANIFEST, value)


def read_manifest(folder: Path, run: Path) -> Manifest | None:
    """A parcel's manifest; None where the parcel is not what its worker sealed.

    A file that is in the run folder already, as it was here, is not missed.
    """
    try:
        value = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest(**value)
        for name, sha256 in manifest.files.items():
            here = folder / name
            if _sha256(here if here.exists() else run / name) != sha256:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest


def pack(folder: Path) -> dict[str, bytes]:
    """Every file's content by its path below ``folder``."""
    return {name: (folder / name).read_bytes() for name in (*_files(folder), MANIFEST) if (folder / name).exists()}


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what ``pack`` read.

    Raises:
        ValueError: A path leads out of the folder.
    """
    for name, content in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name!r} leads out of the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _files(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != MANIFEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
