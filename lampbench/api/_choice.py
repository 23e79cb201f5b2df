"""Which methods and tasks a command or a call is about, and with which settings of methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lampbench.core import InputError, Method, Plugin, Registry, methods, tasks, unknown_name
from lampbench.runner import Plan, Planner, Skip, load_method, load_task

Say = Callable[[str], None]


@dataclass(frozen=True)
class Overrides:
    """Settings of methods: for all methods that have them, and for one."""

    common: Mapping[str, Any]
    by_method: Mapping[str, Mapping[str, Any]]

    def of(self, method: str, method_type: type[Method]) -> dict[str, Any]:
        """The settings that concern ``method``."""
        known = {field.name for field in fields(method_type.Config)}
        common = {key: value for key, value in self.common.items() if key in known}
        return {**common, **self.by_method.get(method, {})}


def method_names(text: str | Sequence[str], say: Say) -> list[str]:
    """The methods asked for: names in any spelling, or ``all``; raises InputError if one is unknown."""
    return _names(text, methods(), load_method, say)


def task_names(text: str | Sequence[str], say: Say) -> list[str]:
    """The tasks asked for: names in any spelling, or ``all``; raises InputError if one is unknown."""
    return _names(text, tasks(), load_task, say)


def overrides(chosen: Iterable[str], given: Mapping[str, Any], flags: Iterable[str], k: Any = None) -> Overrides:
    """Settings of methods: ``given``, then ``k``, then ``flags``; the later win.

    Args:
        chosen: The methods that will run.
        given: Setting -> value, or method -> settings: the [set] tables of a config file.
        flags: ``KEY=VALUE`` or ``METHOD.KEY=VALUE``.
        k: A value for the setting of this name, or None.

    Raises:
        InputError: A flag has no ``=``, names a method that is not run, or a key that none of the
            run's methods has (the nearest is named).
    """
    names = list(chosen)
    common: dict[str, Any] = {}
    by_method: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        if isinstance(value, Mapping):
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


def plans_of(planner: Planner, method: Sequence[str], task: Sequence[str], chosen: Overrides, say: Say) -> list[Plan]:
    """The runs of every method on every task that the method supports; what is left out is said.

    Raises:
        InputError: A name, setting, file or model is wrong, or nothing is left to run.
    """
    plans: list[Plan] = []
    for own in task:
        for name in method:
            plan = planner.plan(name, own, chosen.of(name, load_method(name)))
            if isinstance(plan, Skip):
                say(f"skipped: {name} on {own}: {plan.reason}")
            else:
                plans.append(plan)
    if not plans:
        raise InputError("nothing to run: every method was skipped")
    return plans


def _names(text: str | Sequence[str], registry: Registry, load: Callable[[str], object], say: Say) -> list[str]:
    """Registered names; ``all`` leaves out, and says so, what ``load`` refuses: one broken plug-in stops no other."""
    parts = text.split(",") if isinstance(text, str) else text
    names = [part.strip() for part in parts if part.strip()]
    if names == ["all"]:
        return [name for name in registry.names() if _usable(name, load, say)]
    if not names:
        raise InputError(f"no {registry.kind} given; known: {', '.join(registry.names())}")
    found: dict[str, Plugin] = {}
    for name in names:
        plugin = registry.plugin(name)
        if found.setdefault(plugin.name, plugin) is not plugin:
            raise InputError(
                f"{found[plugin.name].value} and {plugin.value}: two {registry.kind}s are called {plugin.name!r}; "
                "give one of them another name, or use them in commands of their own"
            )
    return list(found)


def _usable(name: str, load: Callable[[str], object], say: Say) -> bool:
    try:
        load(name)
    except InputError as error:
        say(f"skipped: {error}")
        return False
    return True


def _chosen_method(name: str, chosen: list[str]) -> str:
    known = methods().canonical(name) or name
    if known not in chosen:
        raise unknown_name("method in a setting", name, chosen, "only methods of this run can be set")
    return known


def _check_common(common: Mapping[str, Any], names: list[str]) -> None:
    known = {field.name for name in names for field in fields(load_method(name).Config)}
    for key in common:
        if key not in known:
            raise unknown_name(f"setting of {', '.join(names)}", key, known)
