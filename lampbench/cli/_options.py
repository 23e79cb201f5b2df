"""What the user asked ``lampbench run`` for: flags over a TOML file over defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from lampbench.core import (
    CACHE_VARIABLE,
    InputError,
    Method,
    MissingDataError,
    Registry,
    Task,
    convert,
    methods,
    tasks,
    unknown_name,
)
from lampbench.runner import load_method, load_task

_Result = TypeVar("_Result")

cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Where data is kept. Default LAMPBENCH_CACHE, or ~/.cache/lampbench.",
)

# Keys of a config file, beside [set] and [set.METHOD].
_FILE_KEYS = (
    "method", "task", "protocol", "data", "cache", "strict", "model", "revision", "seed", "users", "k", "swap-test",
    "dtype", "device", "batch-size", "decoding", "engine", "time-limit", "memory-limit", "trust-remote-code", "out",
    "executor", "address", "workers", "gpus-per-worker",
)  # fmt: skip


@dataclass(frozen=True)
class Overrides:
    """Method settings from the command: for all methods that have them, and for one."""

    common: Mapping[str, Any]
    by_method: Mapping[str, Mapping[str, Any]]

    def of(self, method: str, method_type: type[Method]) -> dict[str, Any]:
        """The settings that concern ``method``."""
        known = {field.name for field in fields(method_type.Config)}
        common = {key: value for key, value in self.common.items() if key in known}
        return {**common, **self.by_method.get(method, {})}


def read_config_file(path: Path) -> dict[str, Any]:
    """A config file's values by flag name; ``set`` holds method settings.

    Raises:
        InputError: The file is missing, no TOML, or has an unknown key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"--config {path}: not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"--config {path}: nested too deeply") from None
    for key in values:
        if key not in (*_FILE_KEYS, "set"):
            raise unknown_name(f"key in {path}", key, [*_FILE_KEYS, "set"])
    if not isinstance(values.get("set", {}), dict):
        raise InputError(f"--config {path}: 'set' must be a table, found {values['set']!r}")
    return values


def names_of(text: Any, registry: Registry, load: Callable[[str], object]) -> list[str]:
    """Names from a comma-separated list, a TOML list, or ``all``; each must be registered.

    ``all`` leaves out, and says so, what ``load`` refuses: one broken plug-in stops no other.
    """
    parts = text.split(",") if isinstance(text, str) else text
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise InputError(f"expected the names of {registry.kind}s, a string or a list of strings, found {text!r}")
    names = [part.strip() for part in parts if part.strip()]
    if names == ["all"]:
        return [name for name in registry.names() if _usable(name, load)]
    if not names:
        raise InputError(f"no {registry.kind} given; known: {', '.join(registry.names())}")
    for name in names:
        registry.plugin(name)
    return list(dict.fromkeys(names))


def overrides(chosen: Iterable[str], file_set: Mapping[str, Any], flags: Iterable[str], k: Any) -> Overrides:
    """Method settings from the config file, then ``--k``, then ``--set KEY=VALUE`` or ``METHOD.KEY=VALUE``.

    Raises:
        InputError: A flag has no ``=``, names a method that is not run, or a key that none of the
            run's methods has (the nearest is named).
    """
    names = list(chosen)
    common: dict[str, Any] = {}
    by_method: dict[str, dict[str, Any]] = {}
    for key, value in file_set.items():
        if isinstance(value, dict):
            by_method.setdefault(_chosen_method(key, names), {}).update(value)
        else:
            common[key] = value
    if k is not None:
        common["k"] = k
    for flag in flags:
        key, equals, value = flag.partition("=")
        if not equals or not key:
            raise InputError(f"--set {flag}: expected KEY=VALUE or METHOD.KEY=VALUE")
        method, dot, rest = key.partition(".")
        if dot:
            by_method.setdefault(_chosen_method(method, names), {})[rest] = value
        else:
            common[key] = value
    _check_common(common, names)
    return Overrides(common, by_method)


def _usable(name: str, load: Callable[[str], object]) -> bool:
    try:
        load(name)
    except InputError as error:
        click.echo(f"skipped: {error}", err=True)
        return False
    return True


def use_cache(folder: Any) -> None:
    """Let everything in this process keep its data in ``folder``, where one was given."""
    if folder is not None:
        os.environ[CACHE_VARIABLE] = str(convert(folder, Path, "cache"))


def task_names(text: Any) -> list[str]:
    """The tasks asked for."""
    return names_of(text, tasks(), load_task)


def for_tasks(text: str, work: Callable[[Task], _Result]) -> list[_Result]:
    """What ``work`` gives for each task asked for; of ``all``, those whose data there is.

    Raises:
        InputError: A name or the data is wrong, or no task's data is there.
    """
    results: list[_Result] = []
    missing: list[MissingDataError] = []
    for name in task_names(text):
        try:
            results.append(work(load_task(name)))
        except MissingDataError as error:
            if text != "all":
                raise
            missing.append(error)
            click.echo(f"skipped: {name}: {error}", err=True)
    if not results:
        raise missing[0]
    return results


def method_names(text: Any) -> list[str]:
    """The methods asked for."""
    return names_of(text, methods(), load_method)


def _chosen_method(name: str, chosen: list[str]) -> str:
    if name not in chosen:
        raise unknown_name("method in a setting", name, chosen, "only methods of this run can be set")
    return name


def _check_common(common: Mapping[str, Any], names: list[str]) -> None:
    known = {field.name for name in names for field in fields(load_method(name).Config)}
    for key in common:
        if key not in known:
            raise unknown_name(f"setting of {', '.join(names)}", key, known)
