"""``lampbench completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from lampbench.cli._main import COMPLETE

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and names on TAB, for SHELL.

    \b
    bash, in ~/.bashrc:                   eval "$(lampbench completion bash)"
    zsh, in ~/.zshrc after compinit:      eval "$(lampbench completion zsh)"
    fish, in ~/.config/fish/config.fish:  lampbench completion fish | source
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise RuntimeError(f"click knows no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, "lampbench", COMPLETE).source())
