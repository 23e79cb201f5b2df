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
        except Exception as error:  # whatever a stranger's module raises must not hide the others
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(
                f"plug-in {self.name!r} of {self.distribution} ({self.value}) cannot be imported: {cause}; "
                "mend or uninstall that distribution"
            ) from error


class Registry:
    """All plug-ins of one kind.

    Names are listed without importing anything. Two distributions that claim one name make that
    name unusable, loudly; every other name works.
    """

    def __init__(self, kind: str, entry_points: Iterable[metadata.EntryPoint]) -> None:
        self.kind = kind
        self._claims: dict[str, list[Plugin]] = {}
        for entry_point in entry_points:
            claims = self._claims.setdefault(entry_point.name, [])
            plugin = _plugin(entry_point)
            # A source tree beside an installed copy shows the same distribution twice.
            if plugin.distribution not in [claim.distribution for claim in claims]:
                claims.append(plugin)

    def names(self) -> list[str]:
        """All names, sorted; nothing is imported."""
        return sorted(self._claims)

    def plugin(self, name: str) -> Plugin:
        """The plug-in called ``name``, not yet imported.

        Raises:
            InputError: The name is unknown (the nearest is named) or claimed twice (both are).
        """
        claims = self._claims.get(name)
        if claims is None:
            note = "LaMP-6 needs a licence and is absent here" if name == "lamp6" else ""
            raise unknown_name(self.kind, name, self._claims, note)
        if len(claims) > 1:
            owners = " and ".join(f"{claim.distribution} ({claim.value})" for claim in claims)
            raise InputError(f"two distributions claim the {self.kind} {name!r}: {owners}; uninstall one of them")
        return claims[0]

    def load(self, name: str) -> Any:
        """Import and return what ``name`` stands for; raises as ``plugin`` and ``Plugin.load`` do."""
        return self.plugin(name).load()


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


def _registry(kind: str) -> Registry:
    return Registry(kind, metadata.entry_points(group=f"lampbench.{kind}s"))


def _plugin(entry_point: metadata.EntryPoint) -> Plugin:
    dist = entry_point.dist
    distribution = f"{dist.name} {dist.version}" if dist is not None else "an unnamed distribution"
    return Plugin(entry_point.name, distribution, entry_point.value, entry_point)
