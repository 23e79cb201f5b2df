"""Dates in the forms that files have them, as texts that sort by time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

# The form in most files; kept as it is.
_PLAIN = re.compile(r"[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?")
_LOOSE = re.compile(r"([0-9]{4})[-/]([0-9]{1,2})(?:[-/]([0-9]{1,2}))?")
_TIMED = re.compile(r"([0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2})[T ](\S.*)")
# Seconds from 1973 to 2286, or milliseconds. Fewer digits could be a year, or a date without hyphens.
_UNIX = re.compile(r"([0-9]{9,10}|[0-9]{12,13})(?:\.[0-9]*)?")
_SECONDS_DIGITS = 10


@lru_cache(maxsize=1 << 16)
def is_plain_date(text: str) -> bool:
    """Whether a text is ``YYYY``, ``YYYY-MM``, ``YYYY-MM-DD`` or empty."""
    return not text or _PLAIN.fullmatch(text) is not None


def date_text(value: Any) -> str | None:
    """A date as ``YYYY[-MM[-DD[Thh:mm:ss[.f]]]]`` in UTC, or empty if there is none; None if it cannot be read.

    Such texts sort by time: a day without a time comes before the times of that day. Read are these, ISO 8601 with a
    time (without a zone it is UTC), ``2015-2-19``, a whole number that is a year, Unix seconds or milliseconds, and
    None.
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return _text(value)


# Typed: 2015 and True, or 1 and 1.0, must not be the same.
@lru_cache(maxsize=1 << 16, typed=True)
def _text(value: str | int | float) -> str | None:
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return _text(int(value))
        text = f"{value:.6f}"
    else:
        text = str(value)
    if is_plain_date(text):
        return text
    text = text.strip()
    try:
        return _loose(text) or _timed(text) or _unix(text)
    except (ValueError, OverflowError, OSError):
        return None


def _loose(text: str) -> str | None:
    match = _LOOSE.fullmatch(text)
    if match is None:
        return None
    year, *rest = (part for part in match.groups() if part)
    plain = "-".join([year, *(part.zfill(2) for part in rest)])
    return plain if is_plain_date(plain) else None


def _timed(text: str) -> str | None:
    match = _TIMED.fullmatch(text)
    day = _loose(match[1]) if match else None
    return _utc(datetime.fromisoformat(f"{day}T{match[2]}")) if match and day else None


def _unix(text: str) -> str | None:
    match = _UNIX.fullmatch(text)
    if match is None:
        return None
    seconds = float(text) if len(match[1]) <= _SECONDS_DIGITS else float(text) / 1000
    return _utc(datetime.fromtimestamp(seconds, UTC))


def _utc(moment: datetime) -> str:
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    text = moment.isoformat()
    return text.rstrip("0") if "." in text else text
