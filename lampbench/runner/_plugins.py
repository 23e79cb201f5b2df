"""Plug-ins as plans use them: loaded by name, and refused if they are not what they should be."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

from lampbench.core import (
    InputError,
    Method,
    SharedIdentity,
    Task,
    config_from,
    digest,
    methods,
    protocols,
    tasks,
)
from lampbench.data import Protocol
from lampbench.metrics import metrics_of


def is_joint(method: str, method_type: type[Method], config: Any) -> bool:
    """Whether the method declares joint training under this config; raises InputError if it says neither."""
    joint = method_type.joint(config)
    if not isinstance(joint, bool):
        raise InputError(f"the method plug-in {method!r}: joint returned {joint!r}; expected True or False")
    return joint


def shared_identity(method: str, method_type: type[Method], config: Any) -> SharedIdentity | None:
    """What the method's own class says that its shared stage depends on; None: all of the config.

    What a class inherits says nothing of it: it may train in another way.

    Raises:
        InputError: It is no SharedIdentity, or its settings are no JSON values.
    """
    if "shared_identity" not in vars(method_type):
        return None
    identity = method_type.shared_identity(config)
    try:
        if identity is None or (isinstance(identity, SharedIdentity) and digest(dict(identity.settings))):
            return identity
    except (TypeError, ValueError) as error:  # a value that JSON does not have
        raise InputError(f"the method plug-in {method!r}: the settings of its shared_identity: {error}") from error
    raise InputError(
        f"the method plug-in {method!r}: shared_identity returned {identity!r}; expected a "
        "lampbench.core.SharedIdentity, or None"
    )


def load_task(name: str) -> Task:
    """The task called ``name``; raises InputError if there is none, or if it is not a task that can be scored."""
    task = tasks().load(name)
    if not isinstance(task, Task):
        raise InputError(f"the task plug-in {name!r} is a {type(task).__name__}; expected an instance of Task")
    metrics_of(task)
    return task


def load_protocol(text: str) -> tuple[Protocol, str]:
    """The protocol that ``text`` (``NAME`` or ``NAME,KEY=VALUE``) asks for, and its canonical form.

    Raises:
        InputError: There is none of that name, it is no protocol, or a setting is wrong.
    """
    given, *parts = text.split(",")
    name = protocols().plugin(given).name
    kind = protocols().load(name)
    if not (isinstance(kind, type) and issubclass(kind, Protocol)):
        raise InputError(f"the protocol plug-in {name!r} is {kind!r}; expected a class derived from Protocol")
    for part in parts:
        if "=" not in part:
            raise InputError(f"--protocol {text}: expected NAME,KEY=VALUE, found {part!r}")
    settings = dict(part.split("=", 1) for part in parts)
    if len(settings) < len(parts):
        raise InputError(f"--protocol {text}: a setting is given twice")
    protocol: Protocol = kind(config_from(kind.Config, settings, f"the protocol {name!r}"))
    return protocol, protocol.canonical(name)


def load_method(name: str) -> type[Method]:
    """The method called ``name``; raises InputError if there is none, or if it cannot be configured."""
    method = load_method_class(name)
    if not is_dataclass(method.Config):
        where = methods().plugin(name).distribution
        raise InputError(f"the method plug-in {name!r} of {where}: its Config must be a frozen dataclass")
    missing = [hook for hook in ("fit_joint", "load_shared") if getattr(method, hook) is getattr(Method, hook)]
    if missing and getattr(method.joint, "__func__", None) is not getattr(Method.joint, "__func__", None):
        raise InputError(
            f"the method plug-in {name!r} declares joint training and does not override {' and '.join(missing)}; "
            "expected a fit_joint, and a load_shared that restores what it learned"
        )
    return method


def load_method_class(name: str) -> type[Method]:
    """The class called ``name``, whatever its config; raises InputError if there is none or it is not a method."""
    plugin = methods().plugin(name)
    method = plugin.load()
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise InputError(
            f"the method plug-in {name!r} of {plugin.distribution} is {method!r}; "
            "expected a class derived from lampbench.Method"
        )
    return method
