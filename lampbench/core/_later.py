"""Modules that are imported when something in them is first used, because importing them takes seconds.

A module that defines what is looked at without being used, such as a method's settings, gets torch so::

    if TYPE_CHECKING:
        import torch
        from torch import Tensor, nn
    else:
        torch, nn = later("torch"), later("torch.nn")

What occurs in annotations alone, such as ``Tensor``, needs no other import. Classes derived from torch's, and torch's
decorators, need torch itself, and belong in other modules.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for the module of its name; it is not in ``sys.modules``, so nobody else meets it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Code that looks at every module, as inspect does, must not import this one.
            raise AttributeError(name)
        found = getattr(importlib.import_module(self.__name__), name)
        # Python looks here first, and does not come again.
        self.__dict__[name] = found
        return found

    def __reduce__(self) -> Any:
        # Workers get the code of plug-in files by value, with what it refers to; other modules are pickled by name.
        return later, (self.__name__,)


def later(name: str) -> Any:
    """The module called ``name``, which is imported when something in it is first used."""
    return _Later(name)


def later_names(package: str, public: Sequence[str], modules: Sequence[str]) -> Callable[[str], Any]:
    """A package's ``__getattr__``, which imports its ``modules`` when a ``public`` name is first asked for."""

    def found(name: str) -> Any:
        if name in public:
            for module in modules:
                value = getattr(importlib.import_module(f"{package}.{module}"), name, None)
                if value is not None:
                    return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return found
