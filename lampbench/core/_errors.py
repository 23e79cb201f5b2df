"""Errors that a user can act on; the command line turns each into one line and an exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LampBenchError(Exception):
    """A run failed for a reason that its message, one line, explains. Exit status 1."""

    exit_status = 1

    def __str__(self) -> str:
        # A message quotes what was found, which may contain any character.
        return " ".join(super().__str__().splitlines())


class InputError(LampBenchError):
    """The input (an option, file, record or plug-in name) is wrong. Exit status 2."""

    exit_status = 2


class MissingDataError(InputError):
    """A protocol has no data of a task. ``--task all`` leaves such tasks out."""


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says; empty if it says nothing."""
    return (str(error).strip().splitlines() or [""])[0]


def unknown_name(kind: str, name: str, known: Iterable[str], note: str = "") -> InputError:
    """The error for an unknown name: what was found, the nearest name, all names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    middle = f" {note};" if note else ""
    return InputError(f"unknown {kind} {name!r};{middle}{hint} known: {', '.join(names) or 'none'}")
