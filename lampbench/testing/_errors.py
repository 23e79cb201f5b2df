"""How a check ends, when it does not pass."""

from __future__ import annotations

from typing import NoReturn
from unittest import SkipTest


class ContractError(AssertionError):
    """A method breaks a promise; the message says what was found, what was expected, and what to do."""


class NotTried(SkipTest):
    """A check that says nothing here: the task is skipped, or what it builds on fails. For pytest, a skip."""


def broken(found: str) -> NoReturn:
    """End a check: the promise is broken."""
    raise ContractError(found)
