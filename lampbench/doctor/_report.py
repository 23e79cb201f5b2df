"""Findings in sections, and the secrets that must not be printed with them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import unquote

_SECRET_NAME = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|API_?KEY|PRIVATE|CREDENTIAL", re.IGNORECASE)
# Up to the last @ before a space, because a password may hold any character.
_PASSWORD = re.compile(r"^(?:\w+://)?[^\s:/]*:(?P<password>\S+)@")
# Shorter values are words such as "true"; replacing them would damage the report.
_SHORTEST_SECRET = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        name: What it is: ``torch``, ``method perfit``.
        value: What was found: a version, a folder, an entry point.
        text: What it means; empty if there is nothing to say.
        mark: ``ok``, ``note`` (good to know, or the result of a problem elsewhere) or ``problem``.
        do: What to do about a problem.
    """

    name: str
    value: str = ""
    text: str = ""
    mark: Literal["ok", "note", "problem"] = "ok"
    do: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, by section."""

    sections: Mapping[str, tuple[Finding, ...]]

    @property
    def problems(self) -> list[Finding]:
        """What is wrong, in order."""
        return [finding for section in self.sections.values() for finding in section if finding.mark == "problem"]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        sections = {name: [asdict(finding) for finding in section] for name, section in self.sections.items()}
        return {"ok": not self.problems, "problems": list(map(asdict, self.problems)), "sections": sections}


def without_secrets(text: str) -> str:
    """``text`` with the tokens and passwords of the environment replaced by ``***``."""
    secrets: set[str] = set()
    for name, value in os.environ.items():
        # Line by line, because only the first line of an error is printed.
        secrets.update(value.splitlines() if _SECRET_NAME.search(name) else [])
        if found := _PASSWORD.match(value):
            secrets.update((found["password"], unquote(found["password"])))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***") if len(secret) >= _SHORTEST_SECRET else text
    return text
