"""Plug-ins, found through the entry points of installed distributions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from lampbench.core._errors import InputError, unknown_name


@dataclass(frozen=True, slots=True)
class Plugin:
    """A registered name: where it comes from, not yet imported.

    Attributes:
        name: The name on the command line.
        distribution: ``name version`` of the distribution that declares it.
        value: The entry point, ``module:attribute``.
    """

    name: str
    distribution: str
    value: str
    entry_point: metadata.EntryPoint

    def load(self) -> Any:
        """Import the plug-in.

        Raises:
            InputError: The import failed; the message names the distribution and the cause.
        """
        try:
            return self.entry_point.load()
        except (Exception, SystemExit) as error:  # a plug-in may raise anything, and must not hide the others
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(
                f"plug-in {self.name!r} of {self.distribution} ({self.value}) cannot be imported: {cause}; "
                "repair or uninstall that distribution"
            ) from error


class Registry:
    """All plug-ins of one kind.

    Names are listed without importing anything. Two distributions that claim one name make that
    name an error that names both; every other name works.
    """

    def __init__(self, kind: str, entry_points: Iterable[metadata.EntryPoint]) -> None:
        self.kind = kind
        self._claims: dict[str, list[Plugin]] = {}
        self._loaded: dict[str, tuple[Plugin, Any]] = {}
        for entry_point in entry_points:
            claims = self._claims.setdefault(entry_point.name, [])
            plugin = _plugin(entry_point)
            # A source tree beside an installed copy shows the same distribution twice.
            if plugin.distribution not in [claim.distribution for claim in claims]:
                claims.append(plugin)

    def names(self) -> list[str]:
        """All names, sorted; nothing is imported."""
        return sorted(self._claims)

    def claims(self, name: str) -> list[Plugin]:
        """Every plug-in that claims ``name``: several if distributions conflict, none if it is unknown."""
        return list(self._claims.get(name, []))

    def plugin(self, name: str) -> Plugin:
        """The plug-in called ``name``, not yet imported.

        Raises:
            InputError: The name is unknown (the nearest is named) or claimed twice (both are).
        """
        claims = self.claims(name)
        if not claims:
            note = "LaMP-6 needs a licence and is absent here" if name == "lamp6" else ""
            raise unknown_name(self.kind, name, self._claims, note)
        if len(claims) > 1:
            owners = " and ".join(f"{claim.distribution} ({claim.value})" for claim in claims)
            raise InputError(f"two distributions claim the {self.kind} {name!r}: {owners}; uninstall one of them")
        return claims[0]

    def load(self, name: str) -> Any:
        """Import and return what ``name`` stands for; raises as ``plugin`` and ``Plugin.load`` do."""
        plugin = self.plugin(name)
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
    """Installed tasks (entry points ``lampbench.tasks``: instances of ``Task``)."""
    return _registry("task")


@cache
def protocols() -> Registry:
    """Installed protocols (entry points ``lampbench.protocols``: classes derived from ``Protocol``)."""
    return _registry("protocol")


@cache
def metrics() -> Registry:
    """Installed metrics (entry points ``lampbench.metrics``: instances of ``Metric``)."""
    return _registry("metric")


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


def _plugin(entry_point: metadata.EntryPoint) -> Plugin:
    dist = entry_point.dist
    distribution = f"{dist.name} {dist.version}" if dist is not None and dist.name else "an unnamed distribution"
    return Plugin(entry_point.name, distribution, entry_point.value, entry_point)
