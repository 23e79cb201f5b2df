"""What is searched: candidates for a method's settings, and draws from all their combinations."""

from __future__ import annotations

import random
import tomllib
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

from lampbench.core import InputError, Method, RunContext, Task, convert, derive_seed, unknown_name


@dataclass(frozen=True)
class Space:
    """Candidates for each setting; a point is one of each.

    Attributes:
        candidates: Setting -> values, each once; in order of the settings' names.
    """

    candidates: Mapping[str, tuple[Any, ...]]

    @property
    def size(self) -> int:
        """How many points there are."""
        return prod(map(len, self.candidates.values()))

    def at(self, number: int) -> dict[str, Any]:
        """The point of a number from 0 to below ``size``."""
        point = {}
        for name, values in self.candidates.items():
            number, place = divmod(number, len(values))
            point[name] = values[place]
        return point

    def draws(self, seed: int, *names: str, taken: set[int]) -> Iterator[dict[str, Any]]:
        """Points in random order, without those that are ``taken``, until there are none; each is taken once drawn.

        What is drawn depends on the seed, the names and what is taken alone.
        """
        generator = random.Random(derive_seed(seed, *names))
        while len(taken) < self.size:
            number = generator.randrange(self.size)
            if number not in taken:
                taken.add(number)
                yield self.at(number)


class NoSpaceError(InputError):
    """A method declares no settings to search, or cannot say which.

    Attributes:
        reason: What the message says without its advice.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"{reason}; {advice}" if advice else reason)
        self.reason = reason


def space_of(method: str, kind: type[Method], task: Task, context: RunContext, fixed: Collection[str]) -> Space:
    """The space that a method declares, less the settings that the user ``fixed``.

    Raises:
        NoSpaceError: It declares none, or its code for that fails.
        InputError: It declares one that does not fit its settings.
    """
    try:
        declared = dict(kind.search_space(task, context))
    except Exception as error:  # a third party's code
        raise NoSpaceError(f"{method}: search_space fails: {type(error).__name__}: {error}") from error
    candidates = {name: values for name, values in declared.items() if name not in fixed}
    if not candidates:
        what = "declares no settings to search" if not declared else "has nothing left to search beside --set"
        raise NoSpaceError(f"{method} {what}", "name some: --space FILE.toml, with a line SETTING = [VALUES] for each")
    return _checked(candidates, kind, method, f"{method}: search_space")


def read_space(
    path: Path, method: str, kind: type[Method], fixed: Collection[str], tuned: Sequence[str] = ()
) -> Space | None:
    """The space that a TOML file gives a method: a line ``SETTING = [VALUES]`` for each setting.

    Args:
        path: The file.
        method: The method's name.
        kind: Its class.
        fixed: Settings that are not searched.
        tuned: All methods of the command; the lines of each stand in a table ``[METHOD]``, unless there is only one.

    Returns:
        None if the file has tables for other methods alone.

    Raises:
        InputError: The file is missing or not TOML, a method or a setting is unknown, a setting is also ``fixed``, or a
            value does not fit its setting.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--space {path}: {getattr(error, 'strerror', None) or error}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"--space {path}: not valid TOML: {error}") from None
    if len(tuned) > 1:
        for name in values:
            if name not in tuned:
                raise unknown_name(f"table in --space {path}", name, tuned, "expected one for each method")
        if method not in values:
            return None
    values = values.get(method, values)
    if not isinstance(values, dict) or not values:
        raise InputError(f"--space {path}: names no setting; expected a line SETTING = [VALUES] for each")
    for name in fixed:
        if name in values:
            raise InputError(f"--space {path}: {name} is searched there and fixed by --set; take one of them")
    return _checked(values, kind, method, f"--space {path}")


def _checked(values: Mapping[str, Any], kind: type[Method], method: str, where: str) -> Space:
    hints = typing.get_type_hints(kind.Config)
    known = [field.name for field in fields(kind.Config)]
    candidates = {}
    for name in sorted(values):
        if name not in known:
            raise unknown_name(f"setting of {method} in {where}", name, known)
        if not isinstance(values[name], Sequence) or isinstance(values[name], str) or not values[name]:
            raise InputError(f"{where}: {name}: expected a list of values to try, found {values[name]!r}")
        converted = [convert(value, hints[name], f"{where}: a value of {name}") for value in values[name]]
        candidates[name] = tuple(value for place, value in enumerate(converted) if value not in converted[:place])
    return Space(candidates)
