"""What is tried once a method: that it is there, says what it is, and does something."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lampbench.core import InputError
from lampbench.testing._errors import broken
from lampbench.testing._trial import Subject

# Attributes of a class that the runner reads, and their types in words.
_ATTRIBUTES: dict[str, tuple[Any, str]] = {
    "version": (lambda value: type(value) is int and value >= 1, "a whole number from 1"),
    "paper": (lambda value: isinstance(value, str), "a string"),
    "needs_backbone": (lambda value: isinstance(value, bool), "True or False"),
    "users_at_once": (lambda value: type(value) is int and value >= 1, "a whole number from 1"),
    "engines": (
        lambda value: isinstance(value, tuple) and all(isinstance(name, str) for name in value),
        "a tuple of strings",
    ),
}


def can_be_imported(subject: Subject) -> None:
    """Import it."""
    try:
        _ = subject.kind
    except InputError as error:
        broken(str(error))


def description(subject: Subject) -> None:
    """Look at what the class says of itself."""
    kind = subject.kind
    if not (kind.__doc__ or "").strip():
        broken(f"the class {kind.__name__} has no docstring; its first line is what lampbench list methods shows")
    for name, (right, expected) in _ATTRIBUTES.items():
        value = getattr(kind, name)
        if not right(value):
            broken(f"{kind.__name__}.{name} is {value!r}; expected {expected}")


def skips(subject: Subject) -> Iterable[str]:
    """Ask which tasks it supports."""
    reasons = {}
    for task in subject.tasks:
        answer = subject.supports(task)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            broken(f"supports({task}) returned {answer!r}; expected (True, '') or (False, a reason)")
        supported, reason = answer
        if not (isinstance(supported, bool) and isinstance(reason, str)):
            broken(f"supports({task}) returned {answer!r}; expected (True, '') or (False, a reason)")
        if supported:
            continue
        if not reason.strip():
            broken(f"supports({task}) says no and gives no reason")
        reasons[task] = reason
    if len(reasons) == len(subject.tasks):
        said = "; ".join(f"{task}: {reason}" for task, reason in reasons.items())
        broken(f"the method skips every task that was asked for ({said})")
    return [f"skips {task}: {reason}" for task, reason in reasons.items()]
