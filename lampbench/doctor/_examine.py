"""The parts of the report, each on its own: what fails in one is a finding, and stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from lampbench.doctor._causes import Causes
from lampbench.doctor._child import run_steps
from lampbench.doctor._device import device
from lampbench.doctor._folders import folders
from lampbench.doctor._installed import installed
from lampbench.doctor._metadata import stale_metadata
from lampbench.doctor._network import network
from lampbench.doctor._plugins import plugin_steps, plugins
from lampbench.doctor._report import Finding, Report, Section
from lampbench.doctor._secrets import without_secrets
from lampbench.doctor._versions import versions
from lampbench.doctor._wanted import wanted

_Item = TypeVar("_Item")


def examine() -> Report:
    """Look at everything; takes as long as importing it all."""
    trouble: list[Finding] = []
    found = _attempt("what is installed", installed, trouble)
    needed = _attempt("what is needed", lambda: wanted(found), trouble)
    loads = _attempt("plug-ins", plugin_steps, trouble)
    outcomes = run_steps([*(f"import {entry.module}" for entry in needed), "cpu", "device", "model", "data", *loads])
    causes = Causes.of(needed, found, outcomes)
    # Causes come before what they break.
    parts: dict[str, Callable[[], Iterable[Finding]]] = {
        "versions": lambda: [*trouble, *versions(found, needed, outcomes, causes)],
        "metadata": lambda: stale_metadata(found, needed),
        "plug-ins": lambda: plugins(outcomes, causes),
        "device": lambda: device(outcomes, causes),
        "folders": lambda: folders(outcomes, causes),
        "network": network,
    }
    return without_secrets(Report(tuple(_section(name, look) for name, look in parts.items())))


def _attempt(what: str, look: Callable[[], list[_Item]], trouble: list[Finding]) -> list[_Item]:
    try:
        return look()
    except Exception as error:  # as in _section
        trouble.append(_failed(what, error))
        return []


def _section(name: str, look: Callable[[], Iterable[Finding]]) -> Section:
    findings: list[Finding] = []
    try:
        for finding in look():
            findings.append(finding)
    except Exception as error:  # what broke this part must not hide the others
        findings.append(_failed(name, error))
    return Section(name, tuple(findings))


def _failed(what: str, error: Exception) -> Finding:
    text = f"could not be looked at any further: {type(error).__name__}: {error}"
    return Finding(what, "", text, "problem", "please report this as an error of LampBench")
