"""How it is tried whether a method names all settings that its shared stage reads."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lampbench.core import InputError, SharedIdentity
from lampbench.runner import shared_identity
from lampbench.testing._contract import broken
from lampbench.testing._method_trial import Trial
from lampbench.testing._state_files import contents, saving


def shared_settings(trial: Trial) -> Iterable[str]:
    """Train the shared stage again under other values of all settings that it is said not to read."""
    if not trial.fits or _identity(trial, trial.plan.config) is None:
        return []
    names, config = _changed(trial)
    if not names:
        return []
    first = _trained(trial, trial.plan.config)
    if _trained(trial, config) == first:
        return []
    if _trained(trial, trial.plan.config) == first:
        alone = (name for name in names if _trained(trial, _with(trial, trial.plan.config, name, config)) != first)
        broken(
            f"the saved shared state changes with {next(alone, ' and '.join(names))}, and shared_identity does not: "
            "runs that differ in it would share one stage"
        )
    return ["the shared state has other bytes after each training, so what it depends on cannot be seen"]


def _changed(trial: Trial) -> tuple[Sequence[str], Any]:
    """The settings that the shared stage is said not to read, and a config in which all of them are others."""
    plan, names = trial.plan, []
    config, declared = plan.config, _identity(trial, plan.config)
    space = plan.method_type.search_space(plan.task, trial.context)
    for field in dataclasses.fields(config):
        for value in _others(field.name, plan.method_type.Config, getattr(config, field.name), space):
            try:
                other = _resolved(trial, dataclasses.replace(config, **{field.name: value}))
                same = _identity(trial, other) == declared
            except (InputError, ValueError):  # the method does not take this value
                continue
            if same and other != config:
                names.append(field.name)
                config = other
            break
    return names, config


def _others(name: str, kind: type, value: Any, space: Mapping[str, Sequence[Any]]) -> Iterator[Any]:
    """Values of a setting that are not this one."""
    hint = typing.get_type_hints(kind)[name]
    parts = [part for own in (hint, *typing.get_args(hint)) for part in (own, *typing.get_args(own))]
    tried = [*space.get(name, ()), *_near(value)]
    for option in [hint, *typing.get_args(hint)]:
        if typing.get_origin(option) is typing.Literal:
            tried += typing.get_args(option)
    if value is None:
        tried += [kind(1) for kind in (int, float) if kind in parts]
    yield from (other for other in tried if other != value)


def _near(value: Any) -> Sequence[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [value * 2 or 0.1, value / 2]
    return [value[:-1]] if isinstance(value, tuple) and len(value) > 1 else []


def _identity(trial: Trial, config: Any) -> SharedIdentity | None:
    return shared_identity(trial.plan.method, trial.plan.method_type, config)


def _resolved(trial: Trial, config: Any) -> Any:
    return trial.plan.method_type.resolve(config, trial.plan.task, trial.context)


def _with(trial: Trial, config: Any, name: str, other: Any) -> Any:
    """The config with one setting of the other one."""
    return _resolved(trial, dataclasses.replace(config, **{name: getattr(other, name)}))


def _trained(trial: Trial, config: Any) -> dict[str, bytes]:
    """The files of the shared state that is trained under a config."""
    method = trial.fitted(config)
    with TemporaryDirectory(prefix="lampbench-contract-") as root:
        with saving(Path(root)) as folders:
            method.save_shared(folders.new("shared"))
        return contents(Path(root) / "states")
