"""Which methods, tasks and method settings a command is about."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from lampbench.api import known_runs, task_names
from lampbench.cli._flags import METHODS, TASKS, Typed, flag, plugin_words
from lampbench.core import CACHE_VARIABLE, MissingDataError, Task
from lampbench.runner import Settings, load_task, options

_Result = TypeVar("_Result")
_Command = TypeVar("_Command", bound=Callable[..., Any])

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
method_option = flag("--method", required=True, type=METHODS, help="Methods, comma-separated, or all.")
task_option = flag("--task", required=True, type=TASKS, help="Tasks, comma-separated, or all.")
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


out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Settings().out,
    show_default=True,
    help="The folder in which runs are looked for.",
)


def run_argument(name: str, **more: Any) -> Callable[[_Command], _Command]:
    """An argument that names finished runs: folders, beginnings of ids, or TASK/METHOD."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = {"/".join(run.parts[-3:-1]) for run in known_runs(Path(ctx.params.get("out") or Settings().out))}
        found = [CompletionItem(own) for own in sorted(names) if own.startswith(incomplete)]
        # A folder, which the shell itself knows.
        return found or [CompletionItem(incomplete, type="dir")]

    return click.argument(name, metavar=name.upper(), shell_complete=complete, **more)


def where_words(out: Path, data: Path | None = None) -> str:
    """The options that a command which this one prints needs to find the same runs, data and plug-ins."""
    given = {"--out": out if out != Settings().out else None, "--data": data}
    words = [f" {option} {shlex.quote(str(path))}" for option, path in given.items() if path is not None]
    return "".join(words) + plugin_words()


def note(text: str) -> None:
    """A line on standard error."""
    click.echo(text, err=True)


def use_cache(folder: Path | None) -> None:
    """Let everything in this process keep its data in ``folder``, if it is given."""
    if folder is not None:
        os.environ[CACHE_VARIABLE] = str(folder)


def for_tasks(text: str, work: Callable[[Task], _Result]) -> list[_Result]:
    """What ``work`` gives for each task asked for; ``all`` skips tasks without data.

    Raises:
        InputError: A name or the data is wrong, or no task's data is there.
    """
    results: list[_Result] = []
    missing: list[MissingDataError] = []
    for name in task_names(text, note):
        try:
            results.append(work(load_task(name)))
        except MissingDataError as error:
            if text != "all":
                raise
            missing.append(error)
            note(f"skipped: {name}: {error}")
    if not results:
        raise missing[0]
    return results
