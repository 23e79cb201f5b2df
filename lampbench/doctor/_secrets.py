"""What must not be printed: tokens and passwords of the environment, in whatever text they turn up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

from lampbench.doctor._report import Report

_HIDDEN = "***"
_TELLING = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|API_?KEY|PRIVATE|CREDENTIAL", re.IGNORECASE)
# Up to the last @ before a space: passwords hold anything.
_USER = re.compile(r"(?<=://)[^\s]*@")
_PASSWORD = re.compile(r"^(?:\w+://)?[^\s:/]*:(?P<password>\S{4,})@")
# Shorter ones are words of a switch, such as "true", or would blot out half of the report.
_SHORTEST = 6


def without_secrets(report: Report) -> Report:
    """The report with every known secret blotted out."""
    known = sorted(set(_secrets()), key=len, reverse=True)

    def blotted(text: str) -> str:
        for secret in known:
            text = text.replace(secret, _HIDDEN)
        return _USER.sub(f"{_HIDDEN}@", text)

    return report.mapped(blotted)


def address(url: str) -> str:
    """Scheme, host and port of an address, without user, password, path or query; empty where there is no host."""
    scheme = url.partition("://")[0] + "://" if "://" in url else ""
    host = re.split(r"[/?#]", url.rpartition("@")[2].rpartition("://")[2], maxsplit=1)[0]
    return scheme + host if host else ""


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if _TELLING.search(name):
            # Line by line: of an error the first line is told.
            yield from (line for line in value.splitlines() if len(line) >= _SHORTEST)
        found = _PASSWORD.match(value)
        if found:
            yield from (found["password"], unquote(found["password"]))
