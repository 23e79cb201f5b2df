"""Plug-ins, found through the entry points of installed distributions."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from lampbench.core._errors import InputError, unknown_name
from lampbench.core._files import file_sha256


@dataclass(frozen=True, slots=True)
class Plugin:
    """A registered name: where it comes from, not yet imported.

    Attributes:
        name: The name on the command line.
        distribution: ``name version`` of the distribution that declares it, or the name of a file.
        value: The entry point, ``module:attribute``.
        target: What a file gave; None for a plug-in of a distribution, which is imported when it is needed.
    """

    name: str
    distribution: str
    value: str
    entry_point: metadata.EntryPoint
    target: Any = None

    def load(self) -> Any:
        """Import the plug-in.

        Raises:
            InputError: The import failed; the message names the distribution and the cause.
        """
        if self.target is not None:
            return self.target
        try:
            return self.entry_point.load()
        except (Exception, SystemExit) as error:  # a plug-in may raise anything, and must not hide the others
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(
                f"plug-in {self.name!r} of {self.distribution} ({self.value}) cannot be imported: {cause}; "
                "repair or uninstall that distribution"
            ) from error

    def about(self) -> str:
        """What it is, in a line: its attribute ``about``, or the first line of its docstring.

        A class is read off its source file; only what is not found there is imported.

        Raises:
            InputError: It had to be imported, and the import failed.
        """
        written = _written_about(self.entry_point) if self.target is None else None
        if written is not None:
            return written
        target = self.load()
        return getattr(target, "about", "") or (inspect.getdoc(target) or "").split("\n")[0]


class Registry:
    """All plug-ins of one kind.

    Names are listed without importing anything, and found whatever their case, hyphens and underscores. If two
    distributions claim one name, using that name is an error that names both; every other name works.

    Args:
        kind: What they are, for messages.
        entry_points: Those of installed distributions.
        read: Reads a plug-in from a file of the names that ``suffixes`` end; such a path is then a name as well.
    """

    def __init__(
        self,
        kind: str,
        entry_points: Iterable[metadata.EntryPoint],
        read: Callable[[Path], Plugin] | None = None,
        suffixes: tuple[str, ...] = (),
    ) -> None:
        self.kind = kind
        self._read = read
        self._suffixes = suffixes
        self._claims: dict[str, list[Plugin]] = {}
        self._loaded: dict[str, tuple[Plugin, Any]] = {}
        for entry_point in entry_points:
            claims = self._claims.setdefault(entry_point.name, [])
            plugin = Plugin(entry_point.name, _named(entry_point.dist), entry_point.value, entry_point)
            # A source tree beside an installed copy shows the same distribution twice.
            if plugin.distribution not in [claim.distribution for claim in claims]:
                claims.append(plugin)

    def names(self) -> list[str]:
        """All names, sorted; nothing is imported."""
        return sorted(self._claims)

    def canonical(self, name: str) -> str | None:
        """The registered name that ``name`` spells, such as "lamp5" for "LaMP-5"; None if there is none.

        Raises:
            InputError: It is the name of a file, which cannot be read.
        """
        if name in self._claims:
            return name
        if self._read is not None and name.lower().endswith(self._suffixes):
            return self.add(self._read(Path(name))).name
        found = [known for known in self._claims if _letters(known) == _letters(name)]
        return found[0] if len(found) == 1 else None

    def claims(self, name: str) -> list[Plugin]:
        """Every plug-in that claims ``name``: several if distributions conflict, none if it is unknown."""
        return list(self._claims.get(name, []))

    def add(self, plugin: Plugin) -> Plugin:
        """Let a plug-in that a file gave be found by its name, in place of what a file gave before it.

        Raises:
            InputError: The name is that of an installed plug-in.
        """
        claims = self._claims.get(plugin.name, [])
        installed = [own for own in claims if own.target is None]
        if installed:
            raise InputError(
                f"{plugin.value}: the {self.kind} {plugin.name!r} is already installed ({installed[0].distribution}); "
                "choose another name"
            )
        if claims and claims[0].target == plugin.target:
            return claims[0]
        self._claims[plugin.name] = [plugin]
        return plugin

    def plugin(self, name: str) -> Plugin:
        """The plug-in called ``name``, not yet imported.

        Raises:
            InputError: The name is unknown (the nearest is named) or claimed twice (both are).
        """
        claims = self.claims(self.canonical(name) or name)
        if not claims:
            note = "LaMP-6 needs a licence and is not included" if _letters(name) == "lamp6" else ""
            raise unknown_name(self.kind, name, self._claims, note)
        if len(claims) > 1:
            owners = " and ".join(f"{claim.distribution} ({claim.value})" for claim in claims)
            raise InputError(f"two distributions claim the {self.kind} {name!r}: {owners}; uninstall one of them")
        return claims[0]

    def load(self, name: str) -> Any:
        """Import and return what ``name`` stands for; raises as ``plugin`` and ``Plugin.load`` do."""
        plugin = self.plugin(name)
        name = plugin.name
        # A board asks for the metrics of each of its rows.
        if name not in self._loaded or self._loaded[name][0] is not plugin:
            self._loaded[name] = plugin, plugin.load()
        return self._loaded[name][1]


@cache
def methods() -> Registry:
    """Installed methods (entry points ``lampbench.methods``: classes derived from ``Method``)."""
    return _registry("method")


@cache
def tasks() -> Registry:
    """Installed tasks (entry points ``lampbench.tasks``: instances of ``Task``), and those that files describe."""
    return Registry("task", _entry_points("lampbench.tasks"), _task_in, (".toml", ".json"))


@cache
def protocols() -> Registry:
    """Installed protocols (entry points ``lampbench.protocols``: classes derived from ``Protocol``)."""
    return _registry("protocol")


@cache
def metrics() -> Registry:
    """Installed metrics (entry points ``lampbench.metrics``: instances of ``Metric``)."""
    return _registry("metric")


@cache
def trackers() -> Registry:
    """Installed trackers (entry points ``lampbench.trackers``: classes derived from ``lampbench.trackers.Tracker``)."""
    return _registry("tracker")


def file_plugin(name: str, target: Any, path: Path) -> Plugin:
    """A plug-in that a file gave."""
    owner = f"the file {path.name} (sha256 {file_sha256(path)[:8]})"
    return Plugin(name, owner, str(path), metadata.EntryPoint(name, str(path), ""), target)


def _task_in(path: Path) -> Plugin:
    # It builds on the registry.
    from lampbench.core._task_file import read_task_file

    task = read_task_file(path)
    return file_plugin(task.name, task, path)


def _written_about(point: metadata.EntryPoint) -> str | None:
    """What a class says of itself in its module's file; None if the file does not show it."""
    try:
        top, *inner = point.module.split(".")
        spec = importlib.util.find_spec(top)
        name = top
        for part in inner:
            # Unlike find_spec, this imports no parent.
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, spec.submodule_search_locations) if spec is not None else None
        source = Path(spec.origin).read_bytes() if spec is not None and spec.origin is not None else b""
        body = ast.parse(source).body
    except Exception:  # whatever is wrong with the module, importing it names it
        return None
    found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == point.attr]
    for statement in found[0].body if found else ():
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
            if "about" in names:
                return str(statement.value.value)
    text = ast.get_docstring(found[0]) if found else None
    return text.split("\n")[0] if text else None


def _letters(name: str) -> str:
    """A name without what people spell in different ways."""
    return name.translate({ord(mark): None for mark in "-_ "}).casefold()


def _registry(kind: str) -> Registry:
    return Registry(kind, _entry_points(f"lampbench.{kind}s"))


def _entry_points(group: str) -> Iterable[metadata.EntryPoint]:
    try:
        return metadata.entry_points(group=group)
    except Exception:  # one file that cannot be read must not hide the others; `lampbench doctor` names it
        return [point for dist in metadata.distributions() for point in _readable(dist) if point.group == group]


def _readable(dist: metadata.Distribution) -> Iterable[metadata.EntryPoint]:
    try:
        return dist.entry_points
    except Exception:  # see _entry_points
        return ()


@lru_cache(maxsize=16)
def _named(dist: metadata.Distribution | None) -> str:
    """A distribution in words; reading its metadata takes longer than all else that a registry does."""
    about = None if dist is None else dist.metadata
    return f"{about['Name']} {about['Version']}" if about is not None and about["Name"] else "an unnamed distribution"
