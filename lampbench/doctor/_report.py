"""Findings in sections, and what is wrong among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Mark = Literal["ok", "note", "problem"]

# Names that a problem's line tells; the rest is counted.
_SHOWN = 6


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What it is: ``torch``, ``method perfit``.
        value: What is there: a version, a folder, an entry point.
        text: What is to be said of it; empty where there is nothing.
        mark: ``ok``, ``note`` (good to know) or ``problem``.
        do: What to do; every problem has it.
        facts: Value and text again, in parts, for programs.
    """

    name: str
    value: str = ""
    text: str = ""
    mark: Mark = "ok"
    do: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; what is empty is null."""
        words = {"name": self.name, "mark": self.mark, "value": self.value, "text": self.text, "do": self.do}
        return {key: word or None for key, word in words.items()} | dict(self.facts)


@dataclass(frozen=True)
class Section:
    """Findings that belong together."""

    name: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Problem:
    """One cause, and everything that it breaks."""

    names: tuple[str, ...]
    text: str
    do: str

    def line(self) -> str:
        """All of it in one line."""
        more = f" and {len(self.names) - _SHOWN} more" if len(self.names) > _SHOWN else ""
        return f"{', '.join(self.names[:_SHOWN])}{more}: {self.text} -> {self.do}"


@dataclass(frozen=True)
class Report:
    """Everything that was found."""

    sections: tuple[Section, ...]

    @property
    def problems(self) -> list[Problem]:
        """What is wrong, in order; findings that say the same are one problem."""
        names: dict[tuple[str, str], list[str]] = {}
        for section in self.sections:
            for finding in section.findings:
                if finding.mark == "problem":
                    names.setdefault((finding.text, finding.do), []).append(finding.name)
        return [Problem(tuple(dict.fromkeys(found)), *words) for words, found in names.items()]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        problems = self.problems
        return {
            "ok": not problems,
            "problems": [{"names": list(p.names), "text": p.text, "do": p.do} for p in problems],
            "sections": {
                section.name: [finding.to_json() for finding in section.findings] for section in self.sections
            },
        }

    def mapped(self, change: Callable[[str], str]) -> Report:
        """The same with every text changed by ``change``."""

        def through(value: Any) -> Any:
            if isinstance(value, str):
                return change(value)
            if isinstance(value, Mapping):
                return {key: through(item) for key, item in value.items()}
            return [through(item) for item in value] if isinstance(value, list | tuple) else value

        def changed(finding: Finding) -> Finding:
            names = ("name", "value", "text", "do", "facts")
            return replace(finding, **{name: through(getattr(finding, name)) for name in names})

        return Report(tuple(Section(s.name, tuple(changed(f) for f in s.findings)) for s in self.sections))
