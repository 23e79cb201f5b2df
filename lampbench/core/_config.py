"""A method's config: a frozen dataclass, read from typed strings or TOML, written as JSON."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lampbench.core._errors import InputError, unknown_name


@dataclasses.dataclass(frozen=True)
class NoConfig:
    """The config of a method that has nothing to set."""


@dataclasses.dataclass(frozen=True, slots=True)
class ConfigField:
    """One setting of a method, as ``lampbench describe`` shows it."""

    name: str
    type: str
    default: Any
    help: str


def setting(default: Any, help: str, *, in_identity: bool = True) -> Any:
    """A config field with a default and a line of help (``dataclasses.field`` underneath).

    A field that only says where a file is, is left out of a run's identity (``in_identity=False``);
    ``Method.resolve`` puts the hash of the file's content into another field.
    """
    return dataclasses.field(default=default, metadata={"help": help, "in_identity": in_identity})


def config_fields(config_type: type) -> list[ConfigField]:
    """Every setting of ``config_type``: name, type, default, help.

    If the type has ``published`` or ``chosen`` settings (field -> value), the help names them.
    """
    hints = typing.get_type_hints(config_type)
    sources = {source: getattr(config_type, source, {}) for source in ("published", "chosen")}

    def help_of(field: dataclasses.Field[Any]) -> str:
        values = [f" ({source}: {own[field.name]})" for source, own in sources.items() if field.name in own]
        return "".join([str(field.metadata.get("help", "")), *values])

    return [
        ConfigField(f.name, type_name(hints[f.name]), _default(f), help_of(f)) for f in dataclasses.fields(config_type)
    ]


def config_from(config_type: type, values: Mapping[str, Any], owner: str, base: Any = None) -> Any:
    """A config of ``config_type`` with ``values`` over ``base`` (default: the type's own defaults).

    Args:
        config_type: A frozen dataclass whose fields are int, float, bool, str, ``Literal``,
            tuples of these, mappings of names to settings, or any of them or None.
        values: Strings (from ``--set``) or TOML values. ``FIELD.KEY`` is a key of a field that is a mapping.
        owner: The method's name, for messages.
        base: The config that ``values`` are laid over.

    Raises:
        InputError: A key is unknown (the nearest one is named), a value has the wrong type, or the
            config's own ``__post_init__`` refuses it with a ValueError.
    """
    hints = typing.get_type_hints(config_type)
    names = [f.name for f in dataclasses.fields(config_type)]
    converted = {}
    for key, value in _nested(values).items():
        if key not in names:
            raise unknown_name(f"setting of {owner}", key, names)
        converted[key] = convert(value, hints[key], f"{owner}: {key}")
    try:
        return dataclasses.replace(config_type() if base is None else base, **converted)
    except ValueError as error:
        raise InputError(f"{owner}: {error}") from error


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, those of keys with a dot gathered into one mapping per field."""
    gathered = {key: value for key, value in values.items() if "." not in key}
    for key, value in values.items():
        field, dot, inner = key.partition(".")
        if dot:
            outer = gathered.get(field)
            gathered[field] = {**(outer if isinstance(outer, Mapping) else {}), inner: value}
    return gathered


def config_to_json(config: Any, *, identity_only: bool = False) -> dict[str, Any]:
    """The config as JSON values, tuples as lists; optionally without fields that are not part of the identity."""
    return {
        f.name: list(value) if isinstance(value := getattr(config, f.name), tuple) else value
        for f in dataclasses.fields(config)
        if not identity_only or f.metadata.get("in_identity", True)
    }


def convert(value: Any, annotation: Any, where: str) -> Any:
    """``value`` (a string or a TOML value) converted to ``annotation``.

    Of a union, the first type that fits is taken. Strings are read as what the type says: ``none`` as None,
    ``yes`` and ``no`` as bools, parts between commas as a tuple.

    Raises:
        InputError: It cannot be read as that type; the message names ``where``, value and type.
    """
    # msgspec takes longer to import than `lampbench --help` has.
    import msgspec

    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    # None first: "none" would otherwise be read as a string.
    for option in sorted(options, key=lambda option: option is not type(None)):
        given = _worded(value, option)
        parts = given if isinstance(given, (list, tuple)) else (given,)
        typed = option is type(None) or not any(isinstance(part, str) for part in parts)
        try:
            converted = msgspec.convert(given, option, strict=typed, dec_hook=_path)
        except (msgspec.ValidationError, TypeError):
            continue
        if _finite(converted):
            return converted
    in_brackets = isinstance(value, str) and value.startswith("[")
    advice = "; write a list with commas and without brackets: 1,2" if in_brackets else ""
    raise InputError(f"{where}: expected {type_name(annotation)}, found {value!r}{advice}")


def type_name(annotation: Any) -> str:
    """An annotation in words: ``int``, ``int or none``, ``list of int``, ``'a' | 'b'``."""
    if _is_union(annotation):
        return " or ".join(type_name(option) for option in typing.get_args(annotation))
    if annotation is type(None):
        return "none"
    if typing.get_origin(annotation) is Literal:
        return " | ".join(repr(option) for option in typing.get_args(annotation))
    if typing.get_origin(annotation) is Mapping:
        return "table"
    if typing.get_origin(annotation) is tuple:
        return f"list of {type_name(typing.get_args(annotation)[0])}"
    return str(getattr(annotation, "__name__", annotation))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _worded(value: Any, kind: Any) -> Any:
    """The value, with words and lists as people type them changed to what msgspec reads."""
    if not isinstance(value, str):
        return value
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return [part if inner is str else part.strip() for part in value.split(",") if part]
    if kind is type(None):
        return None if value.lower() == "none" else value
    if kind is bool:
        return {"yes": "true", "no": "false"}.get(value.lower(), value)
    return value if kind in (str, Path) else value.strip()


def _path(kind: type, value: Any) -> Any:
    if kind is not Path or "\0" in str(value):
        raise ValueError
    return Path(value)


def _finite(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(math.isfinite(part) for part in parts if isinstance(part, float))
