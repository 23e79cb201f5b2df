"""Options of a run: declared once in Settings, offered by every command that they mean something to."""

import json
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from lampbench.cli import cli
from lampbench.core import InputError
from lampbench.runner import Settings, options

COMMANDS = {"run": ("run",), "tune": ("tune",), "analyze": ("analyze", "shifts")}
NAMES = sorted(options())


def command(name: str) -> tuple[click.Command, click.Context]:
    found: click.Command = cli
    context = click.Context(cli)
    for part in COMMANDS[name]:
        assert isinstance(found, click.Group)
        inner = found.get_command(context, part)
        assert inner is not None
        found, context = inner, click.Context(inner, parent=context, info_name=part)
    return found, context


def another(name: str) -> Any:
    """A value of a setting, as a config file has it, that is not the default."""
    kind, default = typing.get_type_hints(Settings)[name], getattr(Settings(), name)
    if typing.get_origin(kind) is not Literal:
        kind = next((part for part in typing.get_args(kind) if part is not type(None)), kind)
    if typing.get_origin(kind) is Literal:
        return next(value for value in typing.get_args(kind) if value != default)
    return {bool: True, int: 3, float: 2.5, str: "other", Path: "other"}[kind]


def parsed(name: str, *arguments: str) -> dict[str, Any]:
    found, context = command(name)
    assert context.parent is not None
    return found.make_context(name, list(arguments), parent=context.parent).params


def test_every_setting_is_an_option_but_what_commands_set_themselves() -> None:
    assert {own.name for own in fields(Settings)} - set(NAMES) <= {"elsewhere"}


@pytest.mark.parametrize("setting", NAMES)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_is_offered_where_it_applies(name: str, setting: str) -> None:
    found, context = command(name)
    flag, text = f"--{setting.replace('_', '-')}", found.get_help(context)
    offered = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert (flag in offered) is (name not in options()[setting].without)
    if flag in offered:
        section = text[: text.index(f"\n  {flag}")].rpartition("\n\n")[2]
        assert section.startswith(f"{options()[setting].group}:")


@pytest.mark.parametrize("setting", NAMES)
def test_every_setting_is_a_key_of_config_files_and_flags_win(setting: str, tmp_path: Path) -> None:
    path, key, value = tmp_path / "run.toml", setting.replace("_", "-"), another(setting)
    path.write_text(f'method = ["perfit", "rag"]\ntask = "lamp5"\n{key} = {json.dumps(value)}\n[set]\nk = 2\n')
    given = parsed("run", "--config", str(path))
    assert str(given[setting]) == str(value)
    assert given[setting] != getattr(Settings(), setting)
    assert given["method"] == "perfit,rag"
    assert given["file_set"] == {"k": 2}
    if value is not True:
        default = getattr(Settings(), setting)
        again = parsed("run", "--config", str(path), f"--{key}", "none" if default is None else str(default))
        assert again[setting] == default


def test_required_options_are_marked_and_a_file_can_give_them(tmp_path: Path) -> None:
    help_text = CliRunner().invoke(cli, ["run", "--help"]).output
    assert [line.split()[0] for line in help_text.splitlines() if "[required]" in line] == ["--method", "--task"]
    (tmp_path / "run.toml").write_text('method = "rag"')
    with pytest.raises(click.MissingParameter, match="task"):
        parsed("run", "--config", str(tmp_path / "run.toml"))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("users", 0, "users must be at least 1, found 0"),
        ("batch_size", -3, "batch-size must be at least 1, found -3"),
        ("memory_limit", 0.0, "memory-limit must be more than 0, found 0"),
        ("threads", 2000, "threads must be at most 1024, found 2000"),
    ],
)
def test_numbers_out_of_range_are_refused_in_python_as_well(setting: str, value: Any, message: str) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(InputError) as caught:
        Settings(**given)
    assert str(caught.value) == message
