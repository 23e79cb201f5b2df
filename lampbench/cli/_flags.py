"""Options of commands: made from the fields of ``Settings``, listed under headings, and read from config files."""

from __future__ import annotations

import shlex
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

from lampbench.core import InputError, Registry, convert, methods, protocols, tasks, unknown_name, use_threads
from lampbench.runner import Settings, options, use_plugin_file

_Command = TypeVar("_Command", bound=Callable[..., Any])
# Where a command's context has its --plugin files.
_PLUGINS = "lampbench.plugin_files"
_WORDS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class Flag(click.Option):
    """An option that ``--help`` lists under the heading ``group``.

    Args:
        group: The heading.
        in_file: Whether it is also a key of config files.
    """

    def __init__(self, *given: Any, group: str, in_file: bool = True, **more: Any) -> None:
        super().__init__(*given, **{"show_default": True, **more})
        self.group, self.key = group, self.opts[0].lstrip("-")
        self.in_file = in_file


def flag(*names: str, group: str = "What to run", **more: Any) -> Callable[[_Command], _Command]:
    """``click.option`` of a ``Flag``."""
    return click.option(*names, cls=Flag, group=group, **more)


class Grouped(click.Command):
    """A command whose ``--help`` lists its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(option, "group", "Help"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class Typed(click.ParamType):  # type: ignore[type-arg]
    """A value as ``annotation`` asks for it, from the command line or from a config file."""

    name = "value"

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; raises InputError if it cannot be read."""
        return convert(value, self.annotation, param.opts[0].lstrip("-") if param else self.name)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The values of a choice; of a path, what the shell itself knows."""
        if self.annotation in (Path, Path | None):
            return [CompletionItem(incomplete, type="file")]
        parts = (self.annotation, *typing.get_args(self.annotation))
        values = [value for part in parts if typing.get_origin(part) is Literal for value in typing.get_args(part)]
        return [CompletionItem(value) for value in values if value.startswith(incomplete)]


class _TypedFlag(Typed, click.types.BoolParamType):
    """A switch, which a config file sets to true or false."""


class Names(click.ParamType):  # type: ignore[type-arg]
    """Names of what a registry holds, comma-separated or as a list of TOML."""

    name = "names"

    def __init__(self, registry: Callable[[], Registry]) -> None:
        self._registry = registry

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The list so far with every name that may come next."""
        before, comma, last = incomplete.rpartition(",")
        names = self._registry().names() + ([] if comma else ["all"])
        found = [name for name in names if _begins(name, last) and name not in before.split(",")]
        return [CompletionItem(f"{before}{comma}{name}") for name in found]

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What click adds if the option is missing."""
        return f"Known: {', '.join(self._registry().names())}; or all."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The names, comma-separated."""
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            what = param.opts[0].lstrip("-") if param else "name"
            raise InputError(f"expected the names of {what}s, a string or a list of strings, found {value!r}")
        return ",".join(names)


METHODS, TASKS = Names(methods), Names(tasks)


def completes(*registries: Callable[[], Registry]) -> Callable[..., list[CompletionItem]]:
    """What completes one name, of any of the registries, in a shell."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = sorted({name for registry in registries for name in registry().names()})
        return [CompletionItem(name) for name in names if _begins(name, incomplete)]

    return complete


def _begins(name: str, start: str) -> bool:
    """Whether ``start``, in any case, is the beginning of a name."""
    return name.casefold().startswith(start.casefold())


def setting_flags(command: str, **changed: Mapping[str, Any]) -> Callable[[_Command], _Command]:
    """The options that fill ``Settings``, as far as they mean something to ``command``.

    Args:
        command: Its name.
        changed: Arguments of ``click.option`` that differ from what the field says, by the field's name.
    """
    types, defaults = typing.get_type_hints(Settings), {own.name: own.default for own in fields(Settings)}

    def decorated(function: _Command) -> _Command:
        for name, option in reversed(options().items()):
            if command in option.without:
                continue
            given: dict[str, Any] = {"group": option.group, "help": option.help, "default": defaults[name]}
            if types[name] is bool:
                given |= {"is_flag": True, "type": _TypedFlag(bool)}
            else:
                given |= {"type": Typed(types[name]), "metavar": option.unit or _metavar(types[name])}
            if name == "protocol":
                given["shell_complete"] = completes(protocols)
            function = flag(f"--{name.replace('_', '-')}", **{**given, **changed.get(name, {})})(function)
        return function

    return decorated


def settings_of(flags: Mapping[str, Any], **changed: Any) -> Settings:
    """The settings that the flags ask for; torch, if it is not loaded yet, will compute with as many threads.

    Raises:
        InputError: A number is out of its range.
    """
    settings = Settings(**{**{name: flags[name] for name in options() if name in flags}, **changed})
    use_threads(settings.threads)
    return settings


def changed_settings(settings: Settings, names: Iterable[str]) -> dict[str, Any]:
    """Those of the named settings that are not the default, by their keys in a config file."""
    default = Settings()
    values = {name: getattr(settings, name) for name in names}
    return {name.replace("_", "-"): value for name, value in values.items() if value != getattr(default, name)}


def offer_plugin_files(command: click.Command) -> None:
    """``--plugin`` for a command, or for each command of a group, unless it is there already."""
    if isinstance(command, click.Group):
        for own in command.commands.values():
            offer_plugin_files(own)
    elif all(param.name != "plugin_files" for param in command.params):
        command.params.append(
            Flag(
                ["--plugin", "plugin_files"], group="What to run", in_file=False, multiple=True, is_eager=True,
                expose_value=False, callback=_use_plugin_files, type=Typed(Path), metavar="FILE.py",
                help="A Python file whose methods, tasks, metrics and protocols are used as if installed.",
            )
        )  # fmt: skip


def _use_plugin_files(context: click.Context, param: click.Parameter, paths: tuple[Path, ...]) -> None:
    for path in paths:
        use_plugin_file(path)
    context.meta[_PLUGINS] = paths


def plugin_words() -> str:
    """What a command that this one prints needs, too: a space and ``--plugin FILE`` for each file that was given."""
    return "".join(f" --plugin {shlex.quote(str(path))}" for path in click.get_current_context().meta.get(_PLUGINS, ()))


def config_flag(function: _Command) -> _Command:
    """``--config``: the file's options are defaults of the command's own; its [set] tables are the value."""
    return flag(
        "--config", "file_set", in_file=False, is_eager=True, callback=_take_file, type=Typed(Path), metavar="PATH",
        help="A TOML file of these options; flags win.",
    )(function)  # fmt: skip


def _take_file(context: click.Context, param: click.Parameter, path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    flags = {own.key: own for own in context.command.params if isinstance(own, Flag) and own.in_file}
    values = _read_toml(path)
    for key in values:
        if key not in (*flags, "set"):
            raise unknown_name(f"key in {path}", key, [*flags, "set"])
    method_settings = values.pop("set", {})
    if not isinstance(method_settings, dict):
        raise InputError(f"--config {path}: 'set' must be a table, found {method_settings!r}")
    context.default_map = {str(flags[key].name): value for key, value in values.items()}
    return method_settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"--config {path}: not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"--config {path}: nested too deeply") from None


def _metavar(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return f"[{'|'.join(typing.get_args(annotation))}]"
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    return _metavar(parts[0]) if parts else _WORDS[annotation]
