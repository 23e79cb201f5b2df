"""Plug-ins in a Python file that is not installed."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from lampbench.core import (
    InputError,
    Method,
    Metric,
    Plugin,
    Registry,
    Task,
    file_plugin,
    file_sha256,
    methods,
    metrics,
    protocols,
    tasks,
)
from lampbench.data import Protocol

_MODULE = "lampbench_plugin_"
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def use_plugin_file(path: Path) -> list[Plugin]:
    """Run a file, and let its methods, tasks, metrics and protocols be found as if they were installed.

    A task is called by its name, a metric by its key, a class by its own name in lower case with hyphens
    (``LatestTitles``: ``latest-titles``). What it imports is left out, and so are abstract classes.

    Raises:
        InputError: There is no such file, it fails, it has no plug-in, or a name is taken.
    """
    module = _imported(path)
    found = [registry.add(file_plugin(name, value, path)) for registry, name, value in _plugins(module)]
    if not found:
        raise InputError(f"--plugin {path}: it has no method, task, metric or protocol")
    return found


def from_file(plugin: Plugin) -> bool:
    """Whether a file gave the plug-in, so that other processes cannot import it."""
    return plugin.target is not None


def plugin_modules() -> list[ModuleType]:
    """The modules of all files that were used, which another process cannot import."""
    return [module for name, module in sys.modules.items() if name.startswith(_MODULE)]


def _imported(path: Path) -> Any:
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"--plugin {path}: {'not a Python file (.py)' if path.exists() else 'no such file'}")
    # The same file has one module, so that its classes exist once; another content has another.
    name = f"{_MODULE}{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{file_sha256(path)[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"--plugin {path}: not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        del sys.modules[name]
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"--plugin {path}: it fails: {cause}") from error
    return module


def _plugins(module: Any) -> Iterator[tuple[Registry, str, Any]]:
    for value in vars(module).values():
        if isinstance(value, Task):
            if not _installed(tasks(), value.name, value):
                yield tasks(), value.name, value
        elif isinstance(value, Metric):
            if not _installed(metrics(), value.key, value):
                yield metrics(), value.key, value
        elif isinstance(value, type) and value.__module__ == module.__name__ and not inspect.isabstract(value):
            name = _WORD.sub("-", value.__name__).lower()
            if issubclass(value, Method):
                yield methods(), name, value
            elif issubclass(value, Protocol):
                yield protocols(), name, value


def _installed(registry: Registry, name: str, value: Any) -> bool:
    """Whether the file only imported an instance of a distribution, such as a task to change a copy of."""
    claims = [plugin for plugin in registry.claims(name) if not from_file(plugin)]
    return len(claims) == 1 and registry.load(name) is value
