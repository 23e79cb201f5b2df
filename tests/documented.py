"""Commands in Markdown and in workflows, held against the command line that there is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click

from lampbench.cli._main import cli

_FENCE = re.compile(r"^(```|~~~)(\w*)[^\n]*\n(.*?)^\1", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^\n|\A)((?:^    [^\n]*\n)+)", re.MULTILINE)


def code_blocks(markdown: str) -> Iterator[tuple[str, str]]:
    """Language (may be empty) and text of every fenced and indented block."""
    yield from ((language, text) for _, language, text in _FENCE.findall(markdown))
    yield from (("", block) for block in _INDENTED.findall(_FENCE.sub("", markdown)))


def commands(script: str) -> list[list[str]]:
    """The ``lampbench`` commands of a script, as lists of words after ``lampbench``."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\|", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue
            if words and words[0].rpartition("/")[2] == "lampbench":
                found.append(words[1:])
    return found


def fault(words: list[str]) -> str | None:
    """What is wrong with a command: a subcommand or an option that does not exist; None where nothing is."""
    command: click.Command = cli
    context, rest = click.Context(cli, info_name="lampbench"), list(words)
    try:
        while True:
            _, rest, _ = command.make_parser(context).parse_args(rest)
            if not isinstance(command, click.Group) or not rest:
                return None
            name, *rest = rest
            found = command.get_command(context, name)
            if found is None:
                return f"{context.command_path} {name}: no such command"
            command, context = found, click.Context(found, parent=context, info_name=name)
    except click.UsageError as error:
        return f"{context.command_path}: {error.format_message()}"
