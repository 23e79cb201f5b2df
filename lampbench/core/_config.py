"""A method's config: a frozen dataclass, read from typed strings or TOML, written as JSON."""

from __future__ import annotations

import dataclasses
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

    A field that only says where a file lies is left out of a run's identity (``in_identity=False``);
    ``Method.resolve`` puts the hash of the file's content into another field.
    """
    return dataclasses.field(default=default, metadata={"help": help, "in_identity": in_identity})


def config_fields(config_type: type) -> list[ConfigField]:
    """Every setting of ``config_type``: name, type, default, help.

    If the type has ``published`` settings (field -> value), the help names them.
    """
    hints = typing.get_type_hints(config_type)
    published = getattr(config_type, "published", {})

    def help_of(field: dataclasses.Field[Any]) -> str:
        value = f" (published: {published[field.name]})" if field.name in published else ""
        return str(field.metadata.get("help", "")) + value

    return [
        ConfigField(f.name, type_name(hints[f.name]), _default(f), help_of(f)) for f in dataclasses.fields(config_type)
    ]


def config_from(config_type: type, values: Mapping[str, Any], owner: str, base: Any = None) -> Any:
    """A config of ``config_type`` with ``values`` over ``base`` (default: the type's own defaults).

    Args:
        config_type: A frozen dataclass whose fields are int, float, bool, str, ``Literal``,
            tuples of these, or any of them or None.
        values: Strings (from ``--set``) or TOML values.
        owner: The method's name, for messages.
        base: The config that ``values`` are laid over.

    Raises:
        InputError: A key is unknown (the nearest one is named), a value has the wrong type, or the
            config's own ``__post_init__`` refuses it with a ValueError.
    """
    hints = typing.get_type_hints(config_type)
    names = [f.name for f in dataclasses.fields(config_type)]
    converted = {}
    for key, value in values.items():
        if key not in names:
            raise unknown_name(f"setting of {owner}", key, names)
        converted[key] = convert(value, hints[key], f"{owner}: {key}")
    try:
        return dataclasses.replace(config_type() if base is None else base, **converted)
    except ValueError as error:
        raise InputError(f"{owner}: {error}") from error


def config_to_json(config: Any, *, identity_only: bool = False) -> dict[str, Any]:
    """The config as JSON values, tuples as lists; on request without what is not of its identity."""
    return {
        f.name: list(value) if isinstance(value := getattr(config, f.name), tuple) else value
        for f in dataclasses.fields(config)
        if not identity_only or f.metadata.get("in_identity", True)
    }


def convert(value: Any, annotation: Any, where: str) -> Any:
    """``value`` (a string or a TOML value) as ``annotation`` asks for it.

    Raises:
        InputError: It cannot be read as that type; the message names ``where``, value and type.
    """
    try:
        return _convert(value, annotation)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{where}: expected {type_name(annotation)}, found {value!r}") from None


def type_name(annotation: Any) -> str:
    """An annotation in words: ``int``, ``int or none``, ``list of int``, ``'a' | 'b'``."""
    if _is_union(annotation):
        return " or ".join(type_name(option) for option in typing.get_args(annotation))
    if annotation is type(None):
        return "none"
    if typing.get_origin(annotation) is Literal:
        return " | ".join(repr(option) for option in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return f"list of {type_name(typing.get_args(annotation)[0])}"
    return str(getattr(annotation, "__name__", annotation))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _convert(value: Any, annotation: Any) -> Any:
    if _is_union(annotation):
        return _convert_union(value, typing.get_args(annotation))
    if annotation is type(None):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        raise ValueError
    if typing.get_origin(annotation) is Literal:
        for option in typing.get_args(annotation):
            if value == option or value == str(option):
                return option
        raise ValueError
    if typing.get_origin(annotation) is tuple:
        inner = typing.get_args(annotation)[0]
        parts = [part for part in value.split(",") if part] if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise TypeError
        return tuple(_convert(part, inner) for part in parts)
    if annotation is bool:
        return _convert_bool(value)
    if annotation is Path:
        if "\0" in str(value):
            raise ValueError
        return Path(value)
    if annotation is str:
        if not isinstance(value, str):
            raise TypeError
        return value
    return _convert_number(value, annotation)


def _convert_union(value: Any, options: tuple[Any, ...]) -> Any:
    # None first: "none" would otherwise be read as a string.
    for option in sorted(options, key=lambda option: option is not type(None)):
        try:
            return _convert(value, option)
        except (ValueError, TypeError, OverflowError):
            continue
    raise ValueError


def _convert_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError


def _convert_number(value: Any, annotation: Any) -> Any:
    if annotation not in (int, float) or isinstance(value, bool):
        raise TypeError
    if annotation is int and isinstance(value, float):
        raise TypeError
    number = annotation(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError
    return number
