"""Why something does not work: in one wording, so that all that one cause breaks counts as one problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lampbench.doctor._child import Outcome
from lampbench.doctor._installed import Installed, by_name
from lampbench.doctor._report import Finding
from lampbench.doctor._wanted import Wanted


@dataclass(frozen=True)
class Causes:
    """What is missing here.

    Attributes:
        missing: Module -> what is said of it, and what to do.
    """

    missing: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, needed: Sequence[Wanted], found: Sequence[Installed], outcomes: Mapping[str, Outcome]) -> Causes:
        """From how the imports ended."""
        missing = {}
        for entry in needed:
            if outcomes[f"import {entry.module}"].missing == entry.module:
                there = by_name(found, entry.name)
                what = "is installed, but its files are gone" if there else "is not installed"
                again = "--force-reinstall " if there else ""
                missing[entry.module] = (f"{entry.name} {what}", f"pip install {again}{entry.requirement}")
        return cls(missing)

    def finding(
        self,
        name: str,
        outcome: Outcome,
        text: str,
        do: str,
        *,
        value: str = "",
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> Finding:
        """Of a step that did not end well: ``text`` and ``do``, or those of what is missing beneath it."""
        if not outcome.tried:
            return Finding(name, value, outcome.error or "", "note", facts=facts)
        top = (outcome.missing or "").partition(".")[0]
        text, do = self.missing.get(top, (text, do))
        return Finding(name, value, text, "problem", do, facts)
