"""What is installed, by the metadata on ``sys.path``, and what the running LampBench's own source tree says."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import lampbench

KINDS = ("method", "task", "protocol")
# Where lampbench and lampbench_methods come from.
ROOT = Path(lampbench.__file__).resolve().parent.parent

# (kind, name) -> module:attribute.
Plugins = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Installed:
    """A distribution's metadata, as it lies on disk.

    Attributes:
        name: Normalized, so that two spellings are one.
        version: Empty where there is none.
        place: The metadata's folder.
        editable: The source folder of an editable install; None for others.
        plugins: The LampBench plug-ins that it declares.
        python: The versions of Python that it asks for.
        fault: What cannot be read of it; None where all can.
        dist: Where the rest can be asked for.
    """

    name: str
    version: str
    place: Path
    editable: Path | None
    plugins: Plugins
    python: str
    fault: str | None
    dist: metadata.Distribution

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True)
class Declared:
    """What the ``pyproject.toml`` beside the running code says; it is newer than metadata that was made of it."""

    version: str
    plugins: Plugins
    requires: Sequence[str]


def installed(path: Sequence[str] | None = None) -> list[Installed]:
    """Every distribution on ``path`` (None: ``sys.path``) in order, those seen twice included; each place once."""
    found = [_read(dist) for dist in metadata.distributions(path=list(sys.path if path is None else path))]
    return list({entry.place: entry for entry in found}.values())


def by_name(entries: Sequence[Installed], name: str) -> list[Installed]:
    """All that go by ``name``, the one that Python takes first."""
    return [entry for entry in entries if entry.name == normalized(name)]


def declared() -> Declared | None:
    """What LampBench's source tree declares; None where it does not run from one."""
    try:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return None
    if project.get("name") != "lampbench":
        return None
    points = project.get("entry-points", {})
    plugins = {(kind, name): value for kind in KINDS for name, value in points.get(f"lampbench.{kind}s", {}).items()}
    return Declared(lampbench.__version__, plugins, project.get("dependencies", []))


def normalized(name: str) -> str:
    """A distribution's name in the one spelling that all others equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read(dist: metadata.Distribution) -> Installed:
    place = Path(str(getattr(dist, "_path", None) or dist.locate_file(""))).resolve()
    name, version, python, fault = _metadata(dist)
    plugins, damage = _plugins(dist)
    return Installed(
        name=normalized(name or place.name.partition("-")[0]),
        version=version,
        place=place,
        editable=_editable(dist),
        plugins=plugins,
        python=python,
        fault=fault or damage,
        dist=dist,
    )


def _metadata(dist: metadata.Distribution) -> tuple[str, str, str, str | None]:
    """Name, version, versions of Python, and what is wrong."""
    try:
        about = dist.metadata
        name, version, python = (str(about[key] or "") for key in ("Name", "Version", "Requires-Python"))
    except Exception as error:  # whatever damaged files make importlib raise
        return "", "", "", f"its METADATA cannot be read ({_line(error)})"
    return name, version, python, None if name and version else "its METADATA is missing or empty"


def _plugins(dist: metadata.Distribution) -> tuple[Plugins, str | None]:
    """The plug-ins, and what is wrong."""
    groups = {f"lampbench.{kind}s": kind for kind in KINDS}
    try:
        points = [point for point in dist.entry_points if point.group in groups]
    except Exception as error:  # a line that is no entry point
        return {}, f"its entry_points.txt cannot be read ({_line(error)})"
    return {(groups[point.group], point.name): point.value for point in points}, None


def _editable(dist: metadata.Distribution) -> Path | None:
    try:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            return Path(url2pathname(urlsplit(origin["url"]).path))
    except (OSError, ValueError, KeyError, AttributeError):
        pass
    return None


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
