"""Which methods, tasks and method settings a command is about."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from lampbench.cli._flags import NAMES, Typed, flag
from lampbench.core import (
    CACHE_VARIABLE,
    InputError,
    Method,
    MissingDataError,
    Registry,
    Task,
    methods,
    tasks,
    unknown_name,
)
from lampbench.runner import Settings, load_method, load_task, options

_Result = TypeVar("_Result")

cache_option = flag(
    "--cache",
    group="Data",
    type=Typed(Path),
    metavar="PATH",
    help="Where data is kept. Default: LAMPBENCH_CACHE, or ~/.cache/lampbench.",
)
tolerate_option = flag(
    "--tolerate",
    group="Data",
    type=Typed(float),
    default=Settings().tolerate,
    metavar="SHARE",
    help=options()["tolerate"].help,
)
method_option = flag("--method", required=True, type=NAMES, help="Methods, comma-separated, or all.")
task_option = flag("--task", required=True, type=NAMES, help="Tasks, comma-separated, or all.")
set_option = flag(
    "--set",
    "method_settings",
    in_file=False,
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of a method, or METHOD.KEY=VALUE.",
)
k_option = flag(
    "--k", type=click.UNPROCESSED, metavar="N", help="History items in the prompt, for methods that have k."
)


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


def names_of(text: str, registry: Registry, load: Callable[[str], object]) -> list[str]:
    """Names from a comma-separated list, or ``all``; each must be registered.

    ``all`` leaves out, and says so, what ``load`` refuses: one broken plug-in stops no other.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
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
    for given in flags:
        key, equals, value = given.partition("=")
        if not equals or not key:
            raise InputError(f"--set {given}: expected KEY=VALUE or METHOD.KEY=VALUE")
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


def use_cache(folder: Path | None) -> None:
    """Let everything in this process keep its data in ``folder``, if it is given."""
    if folder is not None:
        os.environ[CACHE_VARIABLE] = str(folder)


def task_names(text: str) -> list[str]:
    """The tasks asked for."""
    return names_of(text, tasks(), load_task)


def for_tasks(text: str, work: Callable[[Task], _Result]) -> list[_Result]:
    """What ``work`` gives for each task asked for; ``all`` skips tasks without data.

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


def method_names(text: str) -> list[str]:
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
