"""The entry point: commands, and errors as one line with an exit status.

Commands are imported when they are asked for; this module imports click alone.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence

import click

from lampbench.core import unknown_name, use_threads

# The shell sets it when somebody presses TAB; lampbench.cli._completion prints what makes the shell do so.
COMPLETE = "_LAMPBENCH_COMPLETE"
# Name -> module, attribute, and the line that --help shows without importing the command.
_COMMANDS = {
    "run": ("lampbench.cli._run", "run", "Run methods on tasks and measure them."),
    "tune": ("lampbench.cli._tune", "tune", "Choose a method's settings on held-out shared users."),
    "list": ("lampbench.cli._describe", "list_", "List methods, tasks, metrics or protocols."),
    "describe": ("lampbench.cli._describe", "describe", "Show what a method, task, metric or protocol is."),
    "doctor": ("lampbench.cli._doctor", "doctor", "Find out what is wrong with this installation."),
    "test-method": ("lampbench.cli._test_plugin", "test_method", "Check that a method keeps the contract of plug-ins."),
    "test-task": ("lampbench.cli._test_plugin", "test_task", "Check that a task and its metrics keep their contract."),
    "analyze": ("lampbench.cli._analyze", "analyze", "Measure PerFit's two observations on a model and data."),
    "data": ("lampbench.cli._data", "data", "Fetch LaMP, import and export users, write the mini suite."),
    "show": ("lampbench.cli._show", "show", "Show a run's answers beside golds and scores."),
    "export": ("lampbench.cli._export", "export", "Write one user's model for transformers and peft."),
    "compare": ("lampbench.cli._leaderboard", "compare", "Compare finished runs query by query."),
    "leaderboard": ("lampbench.cli._leaderboard", "leaderboard", "Collect finished runs and make boards of them."),
    "validate": ("lampbench.cli._leaderboard", "validate", "Check results and recompute their numbers."),
    "completion": ("lampbench.cli._completion", "completion", "Print a script that completes words on TAB."),
    "rescore": ("lampbench.cli._rescore", "rescore", "Score finished runs by other metrics."),
    "score": ("lampbench.cli._score", "score", "Score a predictions file against a golds file."),
}
# What an interruption leaves, by the words that a command begins with; the others have nothing to resume.
_RESUMABLE = {
    "run": "finished work is kept; repeat the command to resume",
    "tune": "finished trials are kept; repeat the command to resume",
    "analyze": "finished work is kept in the cache; repeat the command to resume",
    "data get": "finished files are kept; repeat the command to resume the download",
}
# What they do has nothing to do with plug-ins in files.
_WITHOUT_PLUGINS = ("doctor", "completion")


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if cmd_name not in _WITHOUT_PLUGINS:
            from lampbench.cli._flags import offer_plugin_files

            offer_plugin_files(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise unknown_name("command", args[0], _COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lampbench")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def cli(debug: bool) -> None:
    """Personalization methods on the LaMP tasks, measured alike.

    \b
    lampbench list methods
    lampbench run --method perfit --task lamp5
    lampbench data get lamp-time --task lamp5
    lampbench run --method perfit --task lamp5 --protocol lamp-time --model DIR

    Exit status: 0 done, 1 a run failed, 2 the input is wrong, 130 interrupted.
    """


def main() -> None:
    """Run the command line and exit."""
    if COMPLETE in os.environ:
        # Click answers the shell and exits.
        cli.main(prog_name="lampbench", complete_var=COMPLETE)
    # As on Ctrl-C, open files are closed and unfinished ones deleted; runs handle signals themselves.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Our own bars and messages say what happens; these would write between them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Before a command imports torch; run, tune and analyze have --threads.
    use_threads()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal cannot show must not end a run.
            stream.reconfigure(errors="backslashreplace")

    try:
        status = cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo(_interrupted(sys.argv[1:]), err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BaseException as error:  # plug-ins may raise anything
        if "--debug" in sys.argv:
            raise
        text, status = _told(error)
        click.echo(f"error: {text}", err=True)
        sys.exit(status)
    sys.exit(status if isinstance(status, int) else 0)


def _interrupted(arguments: Sequence[str]) -> str:
    """What an interrupted command says, whatever it was doing."""
    words = " ".join(word for word in arguments if not word.startswith("-"))
    left = next((text for command, text in _RESUMABLE.items() if f"{words} ".startswith(f"{command} ")), None)
    return f"interrupted: {left}" if left else "interrupted"


def _told(error: BaseException) -> tuple[str, int]:
    """An error in one line, and the exit status."""
    from lampbench.core import LampBenchError, first_line, is_out_of_memory

    if isinstance(error, LampBenchError):
        return str(error), error.exit_status
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # Who writes into an open file is not told its name.
        where = f"{error.filename}: " if error.filename is not None else "a file cannot be written: " if full else ""
        return f"{where}{error.strerror or error}{'; free some space, and repeat the command' if full else ''}", 1
    text = first_line(error)
    if isinstance(error, SystemExit):
        return f"a plug-in ended the program (SystemExit: {text}); repair or uninstall it", 1
    if is_out_of_memory(error):
        return f"out of memory: {text or type(error).__name__}", 1
    return f"unforeseen {type(error).__name__}: {text} (--debug shows where; please report it)", 1
