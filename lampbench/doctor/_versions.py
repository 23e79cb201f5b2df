"""Versions: Python, LampBench, and what it needs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lampbench
from lampbench.doctor._causes import Causes
from lampbench.doctor._child import Outcome
from lampbench.doctor._installed import ROOT, Installed, by_name, declared
from lampbench.doctor._report import Finding
from lampbench.doctor._wanted import Wanted, accepts

# Used where they are, needed nowhere.
_OPTIONAL = ("pyreft", "ray")


def versions(
    found: Sequence[Installed], needed: Sequence[Wanted], outcomes: Mapping[str, Outcome], causes: Causes
) -> Iterator[Finding]:
    """A finding for each."""
    own = by_name(found, "lampbench")
    yield _python(own)
    yield Finding("platform", platform.platform(aliased=True, terse=True), platform.machine())
    if os.environ.get("PYTHONPATH"):
        yield Finding("PYTHONPATH", os.environ["PYTHONPATH"], "modules there come before what is installed", "note")
    yield _lampbench(own)
    for entry in needed:
        yield _dependency(entry, by_name(found, entry.name), outcomes[f"import {entry.module}"], causes)
    for name in _OPTIONAL:
        there = by_name(found, name)
        facts = {"version": there[0].version if there else None}
        yield Finding(name, there[0].version if there else "none", "optional", facts=facts)


def _python(own: Sequence[Installed]) -> Finding:
    version = platform.python_version()
    virtual = sys.prefix != sys.base_prefix
    facts = {"version": version, "executable": sys.executable, "virtual_environment": virtual}
    text = f"{sys.executable}{'' if virtual else ', no virtual environment'}"
    asked = own[0].python if own else ""
    if not accepts(asked, version):
        do = "install LampBench into an environment of such a Python"
        return Finding("python", version, f"LampBench needs Python {asked}", "problem", do, facts)
    return Finding("python", version, text, facts=facts)


def _lampbench(own: Sequence[Installed]) -> Finding:
    version, folder = lampbench.__version__, Path(lampbench.__file__).resolve().parent
    editable = any(entry.editable for entry in own)
    facts = {"version": version, "folder": str(folder), "editable": editable, "installed": bool(own)}
    if not own:
        do = f"pip install --editable {ROOT}" if declared() else "install it with pip"
        text = f"runs from {folder}, but is not installed: its plug-ins cannot be found"
        return Finding("lampbench", version, text, "problem", do, facts)
    return Finding("lampbench", version, f"{folder}{', editable' if editable else ''}", facts=facts)


def _dependency(entry: Wanted, there: Sequence[Installed], outcome: Outcome, causes: Causes) -> Finding:
    version = there[0].version if there else ""
    value = version or "none"
    facts = {"version": version or None, "wanted": entry.versions or None, "wanted_by": entry.by}
    if outcome.error:
        text, do = f"cannot be imported: {outcome.error}", f"pip install --force-reinstall {entry.requirement}"
        return causes.finding(entry.name, outcome, text, do, value=value, facts=facts)
    if version and not accepts(entry.versions, version):
        text = f"{entry.name} {version} is not {entry.versions}, which {entry.by} needs"
        return Finding(entry.name, value, text, "problem", f"pip install {entry.requirement}", facts)
    elsewhere = _elsewhere(entry, there, outcome.facts["file"])
    if elsewhere:
        text = f"a file of the same name hides it: {elsewhere}"
        do = "rename that file, or start Python elsewhere or without PYTHONPATH"
        return Finding(entry.name, value, text, "problem", do, facts)
    if not version:
        return Finding(entry.name, value, f"found without metadata in {outcome.facts['file']}", "note", facts=facts)
    who = "" if entry.by == "LampBench" else f"{entry.by} "
    return Finding(entry.name, value, f"{who}needs {entry.versions}" if entry.versions else "", facts=facts)


def _elsewhere(entry: Wanted, there: Sequence[Installed], file: str | None) -> str | None:
    """The file that is imported, where it is not the distribution's; None where it is, or nobody can tell."""
    if not there or file is None:
        return None
    names = (f"{entry.module}/__init__.py", f"{entry.module}.py")
    own = [path.locate() for path in there[0].dist.files or () if path.as_posix() in names]
    imported = Path(file).resolve()
    return None if not own or imported in [Path(path).resolve() for path in own] else file
