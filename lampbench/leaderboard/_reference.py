"""What the entries of a board are measured against: one method with its published or recommended settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lampbench.core import InputError, Method, RunContext, Task, canonical_json, config_from, config_to_json
from lampbench.leaderboard._results import Result
from lampbench.rows import Identity
from lampbench.runner import load_method, load_protocol


@dataclass(frozen=True)
class Reference:
    """The entry that others are measured against.

    Attributes:
        method: The method that it has to be of.
        entry: The entry's name; None if there is none.
        why: Why there is none.
    """

    method: str
    entry: str | None
    why: str | None = None


def reference(method: str, pools: Mapping[str, Sequence[Result]], task: Task) -> Reference:
    """The entry of ``method`` with the settings that the protocol recommends for it, or else the published ones.

    Args:
        method: Its name.
        pools: Entry -> its results, of what is ranked.
        task: The board's task.
    """
    own = {name: pool[0].identity for name, pool in pools.items() if pool[0].identity.method == method}
    if not own:
        return Reference(method, None, f"no ranked entry of {method}")
    try:
        kind = load_method(method)
        for settings in _usual(kind, method, task, next(iter(own.values())).protocol):
            fits = {name: identity for name, identity in own.items() if _has(identity, settings)}
            if fits:
                return Reference(method, min(fits, key=lambda name: (*_age(fits[name], kind), name)))
    except InputError as error:
        return Reference(method, None, str(error))
    return Reference(method, None, f"no ranked entry of {method} has the published or the recommended settings")


def _usual(kind: type[Method], method: str, task: Task, protocol: str) -> Iterator[Mapping[str, Any]]:
    """The settings of a method that nobody set anything of: as the protocol recommends, and as published."""
    data, name = load_protocol(protocol)
    recommended = data.recommended.get(method, {})
    for values in ([recommended] if recommended else []) + [{}]:
        context = RunContext(data.origin or name, None, method, values)
        try:
            config = kind.resolve(config_from(kind.Config, {}, method), task, context)
        except Exception as error:  # a third party's resolve
            raise InputError(f"the settings of {method} cannot be resolved: {type(error).__name__}: {error}") from error
        yield config_to_json(config, identity_only=True)


def _has(identity: Identity, settings: Mapping[str, Any]) -> bool:
    """Whether a run has these settings; one from before a setting existed need not have it."""
    return all(
        name in settings and canonical_json(value) == canonical_json(settings[name])
        for name, value in identity.config.items()
    )


def _age(identity: Identity, kind: type[Method]) -> tuple[int, bool]:
    """Sorts the newest version first, then the engine that is the default."""
    return -identity.method_version, identity.engine != (kind.engines[0] if kind.engines else None)
