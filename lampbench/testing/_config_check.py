"""The config: frozen, typed, the same after a trip through JSON, and settled by ``resolve`` at once."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lampbench.core import InputError, config_fields, config_from, config_to_json
from lampbench.testing._errors import broken
from lampbench.testing._trial import Trial

_UNKNOWN = "no_such_setting"
_NO_VALUE = "no such value"


class _Thing:
    """What no setting can be."""

    def __repr__(self) -> str:
        return "<some object>"


def config(trial: Trial) -> None:
    """Try the method's config on a task."""
    kind = trial.subject.kind.Config
    _declared(kind)
    defaults = kind()
    _read_back(kind, defaults, "the default config")
    _unknown_is_refused(kind)
    for field in dataclasses.fields(kind):
        for value in _wrong_values(typing.get_type_hints(kind)[field.name]):
            _is_refused(kind, field.name, value)
    resolved = trial.plan.config
    if type(resolved) is not kind:
        broken(f"resolve returned a {type(resolved).__name__}; expected a {kind.__name__}")
    _read_back(kind, resolved, "the resolved config")
    again = trial.plan.method_type.resolve(resolved, trial.plan.task, trial.context)
    if again != resolved:
        broken(f"resolve changes what it resolved before: {_difference(resolved, again)}")


def _declared(kind: Any) -> None:
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        broken(f"Config is {kind!r}; expected a dataclass")
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        broken(f"{kind.__name__} can be changed after it was made; expected @dataclass(frozen=True)")
    open_fields = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if open_fields:
        broken(f"{kind.__name__} has no default for {', '.join(open_fields)}; expected one for every setting")
    config_fields(kind)


def _read_back(kind: type, config: Any, what: str) -> None:
    values = config_to_json(config)
    try:
        again = config_from(kind, json.loads(json.dumps(values, allow_nan=False)), "config")
    except (InputError, TypeError, ValueError) as error:
        broken(f"{what} cannot be written as JSON and read again: {error}")
    if again != config:
        broken(f"{what} is another one after a trip through JSON: {_difference(config, again)}")


def _unknown_is_refused(kind: type) -> None:
    try:
        kind(**{_UNKNOWN: _NO_VALUE})
    except TypeError:
        return
    broken(f"{kind.__name__} takes a setting that it does not declare ({_UNKNOWN})")


def _is_refused(kind: type, name: str, value: Any) -> None:
    try:
        config_from(kind, {name: value}, "config")
    except InputError:
        return
    broken(f"{kind.__name__}.{name} takes {value!r}, which is not of its type")


def _wrong_values(annotation: Any) -> Iterator[Any]:
    yield _Thing()
    if not {str, Path} & set(_types_in(annotation)):
        yield _NO_VALUE


def _types_in(annotation: Any) -> Iterator[Any]:
    """The annotation and everything that it is made of."""
    yield annotation
    if typing.get_origin(annotation) is not typing.Literal:
        for part in typing.get_args(annotation):
            yield from _types_in(part)


def _difference(expected: Any, found: Any) -> str:
    for field in dataclasses.fields(expected):
        before, after = getattr(expected, field.name), getattr(found, field.name, None)
        if before != after:
            return f"{field.name} was {before!r} and is {after!r}"
    return f"{expected!r} and {found!r} are not equal"
