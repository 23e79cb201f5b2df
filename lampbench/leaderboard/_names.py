"""Names of entries. A name depends on the entry's own runs alone, so that an added row does not rename others."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lampbench.core import (
    BackboneShape,
    InputError,
    Method,
    RunContext,
    Task,
    canonical_json,
    config_from,
    config_to_json,
    digest,
    methods,
)
from lampbench.data import Protocol
from lampbench.leaderboard._results import Result
from lampbench.rows import Identity
from lampbench.runner import Settings, load_method, load_protocol

# A method whose defaults are not known is named by all of its settings, or by their number if there are more.
_MOST_LISTED = 6
_LONGEST_VALUE = 24
# Backbones of every usual depth, wide and long enough for any setting.
_DEPTHS, _WIDTH, _CONTEXT = range(1, 129), 1 << 16, 1 << 20


@dataclass(frozen=True)
class Name:
    """What an entry is called.

    Attributes:
        differences: How its settings differ from those that the method has if nothing is set, as ``setting=value``.
        usual: Whether config and decoding are the defaults: what the protocol recommends for its own model, else
            the published settings. Another engine, version or device is named but is not a different setting.
    """

    method: str
    differences: tuple[str, ...] = ()
    usual: bool = True

    def __str__(self) -> str:
        return f"{self.method} ({', '.join(self.differences)})" if self.differences else self.method


def names(pools: Sequence[Sequence[Result]], task: Task) -> list[Name]:
    """A name of its own for every pool of one board.

    A pool is named by how it differs from the default settings of its method. If two pools still have the same name,
    for example because they ran on different devices, the one that finished first keeps it.
    """
    usual = _UsualSettings(task)
    made = [_name(pool, usual) for pool in pools]
    alike: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(made):
        alike[str(name)].append(place)
    for places in alike.values():
        first, *later = sorted(places, key=lambda place: _age(pools[place]))
        for place in later:
            told = _facts_that_differ(pools[place][0].identity, pools[first][0].identity)
            made[place] = Name(made[place].method, (*made[place].differences, *told), made[place].usual)
    return made


def _name(pool: Sequence[Result], usual: _UsualSettings) -> Name:
    result = min(pool, key=lambda own: _age([own]))
    identity = result.identity
    decoding = tuple(_setting(key, value) for key, value in _decoding(identity).items())
    kind, differences = usual.kind(identity.method), usual.differences(result)
    if kind is None or differences is None:
        config = tuple(_setting(key, value) for key, value in _flat(identity.config).items())
        if len(config) > _MOST_LISTED:
            config = (f"{len(config)} settings, {digest(identity.config)[:6]}",)
        return Name(identity.method, (*config, *decoding), not (config or decoding))
    config = tuple(_setting(key, value) for key, value in differences.items())
    engine = (f"engine={identity.engine}",) if identity.engine not in (None, *kind.engines[:1]) else ()
    version = (f"version {identity.method_version}",) if identity.method_version != kind.version else ()
    return Name(identity.method, (*config, *decoding, *engine, *version), not (config or decoding))


class _UsualSettings:
    """The default settings of methods on the board's task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._kinds: dict[str, type[Method] | None] = {}
        self._resolved: dict[tuple[object, ...], list[dict[str, Any]]] = {}

    def kind(self, method: str) -> type[Method] | None:
        """The method; None if it is not installed or cannot be loaded."""
        if method not in self._kinds:
            try:
                self._kinds[method] = load_method(method) if method in methods().names() else None
            except InputError:
                self._kinds[method] = None
        return self._kinds[method]

    def differences(self, result: Result) -> dict[str, Any] | None:
        """Settings of the result's config that are not the defaults; None if the defaults are not known.

        A run that is older than a setting does not have it; that is not a difference.
        """
        kind, config = self.kind(result.identity.method), result.identity.config
        if kind is None:
            return None
        try:
            found = self._differences(result, kind, {})
            if "preset" in found:
                # All that a preset fills differs with it: name the preset, and what differs from that.
                preset = {"preset": config["preset"]}
                found = preset | self._differences(result, kind, preset)
        except Exception:  # a third party's method may raise anything; its runs are named by all of their settings
            return None
        return found

    def _differences(self, result: Result, kind: type[Method], given: Mapping[str, Any]) -> dict[str, Any]:
        identity = result.identity
        plain = self._usual(identity, kind, given, in_any_shape=False)
        found = {key: value for key, value in _flat(identity.config).items() if not _among(value, plain, key)}
        if not found or identity.backbone is None:
            return found
        # Some defaults depend on the backbone's shape, which rows do not record: a value is the default if it would be
        # on a backbone of some shape, and the command did not set it.
        others = self._usual(identity, kind, given, in_any_shape=True)
        return {
            key: value
            for key, value in found.items()
            if not _among(value, others, key) or (_varies(key, others) and _sets(result.row.provenance.argv, key))
        }

    def _usual(
        self, identity: Identity, kind: type[Method], given: Mapping[str, Any], *, in_any_shape: bool
    ) -> list[dict[str, Any]]:
        """The defaults without a backbone's shape, or for every shape that is tried."""
        maps = _texts(_flat(identity.config)) if in_any_shape else ()
        own_model = _is_of_protocol(identity)
        key = identity.method, identity.protocol, own_model, canonical_json(dict(given)), in_any_shape, maps
        if key not in self._resolved:
            shapes = _shapes(maps) if in_any_shape else [None]
            context = _context(identity.protocol, own_model)
            self._resolved[key] = list(self._resolve(kind, identity.method, given, context, shapes))
        return self._resolved[key]

    def _resolve(
        self,
        kind: type[Method],
        method: str,
        given: Mapping[str, Any],
        context: tuple[str, Mapping[str, Mapping[str, Any]]],
        shapes: Sequence[BackboneShape | None],
    ) -> Iterator[dict[str, Any]]:
        protocol, recommended = context
        config = config_from(kind.Config, given, method)
        for shape in shapes:
            try:
                own = RunContext(protocol, shape, method, recommended.get(method, {}), recommended)
                resolved = kind.resolve(config, self._task, own)
            except InputError:
                continue  # not on such a backbone
            yield _flat(config_to_json(resolved, identity_only=True))


def _context(text: str, own_model: bool) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """The protocol's name, and what it recommends on this model, by method."""
    found = _protocol(text)
    if found is None:
        return text, {}
    protocol, name = found
    return protocol.origin or name, protocol.recommended if own_model else {}


def _is_of_protocol(identity: Identity) -> bool:
    """Whether the protocol's recommendations are for the run's model: its own one, or none."""
    found = _protocol(identity.protocol)
    own = found[0].default_model if found else None
    return own is None or identity.backbone is None or Path(own).name == identity.backbone.id


@cache
def _protocol(text: str) -> tuple[Protocol, str] | None:
    """The protocol and its name; None if it is not installed."""
    try:
        return load_protocol(text)
    except InputError:
        return None


def _shapes(maps: tuple[str, ...]) -> list[BackboneShape | None]:
    plain = [BackboneShape(depth, _WIDTH, _CONTEXT) for depth in _DEPTHS]
    return [*plain, BackboneShape(_DEPTHS[-1], _WIDTH, _CONTEXT, linear_maps=maps)] if maps else [*plain]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the settings of another method inside it as settings of their own, ``base.rank``."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        inner = _flat(value) if isinstance(value, Mapping) else None
        found.update({f"{key}.{name}": own for name, own in inner.items()} if inner else {key: value})
    return found


def _texts(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts in the config's lists, in their order: names of modules are among them."""
    lists = [value for value in config.values() if isinstance(value, list)]
    return tuple(dict.fromkeys(item for own in lists for item in own if isinstance(item, str)))


def _among(value: Any, usual: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(key in own and canonical_json(value) == canonical_json(own[key]) for own in usual)


def _varies(key: str, usual: Sequence[Mapping[str, Any]]) -> bool:
    return len({canonical_json(own.get(key)) for own in usual}) > 1


def _sets(argv: Sequence[str], key: str) -> bool:
    """Whether a command sets a setting: ``--set KEY=VALUE``."""
    return any(re.search(rf"(^|[^\w]){re.escape(key)}=", part) for part in argv)


def _decoding(identity: Identity) -> dict[str, Any]:
    """What was set of decoding and keeps no run from sharing a board."""
    own = identity.decoding or {}
    usual = {"batch_size": Settings.batch_size}
    return {key: own[key] for key in ("max_length", "batch_size") if key in own and own[key] != usual.get(key)}


def _age(pool: Sequence[Result]) -> tuple[str, str]:
    """Sorts what finished first to the front."""
    return min((str(result.row.provenance.finished), result.row.run_id) for result in pool)


def _facts_that_differ(own: Identity, other: Identity) -> list[str]:
    ours, theirs = _facts(own), _facts(other)
    return [
        _setting(key, ours.get(key))
        for key in sorted(ours.keys() | theirs.keys())
        if canonical_json(ours.get(key)) != canonical_json(theirs.get(key))
    ]


def _facts(identity: Identity) -> dict[str, Any]:
    plain = identity.to_json()
    return {
        **(plain["decoding"] or {}),
        **(plain["backbone"] or {}),
        **plain["config"],
        "engine": plain["engine"],
        "version": plain["method_version"],
    }


def _setting(key: str, value: Any) -> str:
    return f"{key}={_text(value)}"


def _text(value: Any) -> str:
    """A value as the command line writes it; long ones are shortened."""
    if value is None or isinstance(value, bool):
        text = {None: "none", True: "yes", False: "no"}[value]
    elif isinstance(value, (list, tuple)):
        text = ",".join(map(_text, value))
    elif isinstance(value, float):
        text = repr(value).removesuffix(".0")
    else:
        text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 7]}…{digest(value)[:6]}"
