"""What can be reached from an object by following references: how a check sees that golds are out of reach."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType

# A user's history is a few hundred objects; more than this is no longer about what was handed over.
_MOST = 100_000


def reachable(roots: Iterable[object], wanted: Callable[[object], bool], most: int = _MOST) -> str | None:
    """The way from a root to the nearest object that is wanted.

    Follows what the garbage collector follows, but not into modules, classes, or what functions see
    as globals: everything would be reachable through them. What lies in memory that Python does not
    manage (the cells of an Arrow table, say) is not seen.

    Args:
        roots: Where to start; each may itself be what is wanted.
        wanted: Whether an object is looked for.
        most: Give up after so many objects.

    Returns:
        The types on the way, such as ``Query > dict > str``; None if nothing wanted can be reached.
    """
    found: list[tuple[object, int]] = []
    seen: set[int] = set()

    def add(objects: Iterable[object], origin: int) -> None:
        for item in objects:
            if id(item) not in seen and not isinstance(item, (ModuleType, type)):
                seen.add(id(item))
                # Kept, so that no other object gets its id.
                found.append((item, origin))

    add(roots, -1)
    place = 0
    while place < min(len(found), most):
        item, _ = found[place]
        if wanted(item):
            return _way(found, place)
        add(_referents(item), place)
        place += 1
    return None


def _referents(item: object) -> Iterable[object]:
    """What ``item`` refers to; of a function its defaults and what it closes over."""
    if isinstance(item, FunctionType):
        return [part for part in (item.__closure__, item.__defaults__, item.__kwdefaults__) if part]
    return gc.get_referents(item)


def _way(found: list[tuple[object, int]], place: int) -> str:
    names = []
    while place >= 0:
        item, place = found[place]
        names.append(type(item).__name__)
    return " > ".join(reversed(names))
