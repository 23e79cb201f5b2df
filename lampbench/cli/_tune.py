"""``lampbench tune``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lampbench.api import ProgressReporter, method_names, overrides, task_names
from lampbench.cli._flags import (
    METHODS,
    Grouped,
    Typed,
    changed_settings,
    flag,
    plugin_words,
    setting_flags,
    settings_of,
)
from lampbench.cli._options import cache_option, note, set_option, task_option, use_cache
from lampbench.core import InputError, RunContext, config_from, tasks
from lampbench.rows import RunRow
from lampbench.runner import LocalExecutor, Plan, Planner, Skip, limit_memory, load_method

if TYPE_CHECKING:
    from lampbench.api import Overrides
    from lampbench.tune import Choice, HeldOut, Record, Search, Trial

# What a run of the best settings needs to know again.
_KEPT = (
    "data", "model", "endpoint", "revision", "dtype", "tokenizer", "quantize", "decoding", "chat", "system", "thinking",
    "max_length", "repetition_penalty", "no_repeat_ngram", "prompts", "engine", "trust_remote_code",
)  # fmt: skip


@click.command(cls=Grouped)
@click.argument("method", type=METHODS)
@task_option
@flag(
    "--trials",
    type=click.IntRange(min=1),
    default=20,
    metavar="N",
    help="Runs of each method on each task; the first is the preset.",
)
@flag(
    "--space",
    type=Typed(Path),
    metavar="PATH",
    help="A TOML file with lines SETTING = [VALUES], in a table [METHOD] for each of several methods. "
    "Default: the methods' own.",
)
@flag(
    "--together",
    is_flag=True,
    help="One choice for all tasks: each trial has the same settings on all of them, and the best mean gain wins.",
)
@set_option
@flag("--force", is_flag=True, help="Run finished trials again, and replace another search in the folder.")
@flag(
    "--held-out",
    group="Data",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    metavar="SHARE",
    help="The share of the shared users who are held out and asked.",
)
@setting_flags("tune", out={"default": Path("tuning")})
@cache_option
def tune(
    method: str, task: str, trials: int, space: Path | None, together: bool, method_settings: Sequence[str],
    held_out: float, out: Path, cache: Path | None, force: bool, **flags: Any,
) -> int:  # fmt: skip
    """Choose METHOD's settings by a random search on held-out shared users.

    METHOD is one method, several (comma-separated), or all: each gets the same number of trials, and those without
    settings to search are left out. Evaluated users are never used: some of the protocol's shared users are held out
    and take their place, and the others stay shared. The best settings are a file for lampbench run. The same command
    again keeps finished trials and continues; more --trials continue an earlier search.

    \b
    lampbench tune perfit --task lamp5 --trials 20
    lampbench run --config tuning/lamp5/perfit/best.toml
    lampbench tune all --task lamp3,lamp5 --together
    lampbench run --config tuning/best.toml
    """
    from lampbench.tune import HeldOut, summary

    use_cache(cache)
    names = method_names(method, note)
    users = HeldOut(flags["protocol"], held_out, flags["seed"])
    settings = settings_of(flags, protocol=users.name, out=out / "trials")
    planner = Planner(settings, say=note, protocol=users, force=force)
    options = {"protocol": users.base_name, **changed_settings(settings, _KEPT)}
    searches = _searches(names, task_names(task, note), planner, users, space, method_settings, together)
    # What an earlier command left is looked at before the first trial starts.
    records = [[_record(search, held_out, out, force) for search in own] for own in searches]
    device = next((own.preset.backbone.device for own in chain(*searches) if own.preset.backbone), "cpu")
    limit_memory(settings.memory_limit, device)
    run = partial(LocalExecutor(ProgressReporter(quiet=settings.quiet)).run, force=force)
    choices: list[Choice] = []
    best: list[_Best] = []
    for own, theirs in zip(searches, records, strict=True):
        count = max(trials, *(record.recorded for record in theirs))
        made = [_carry_out(search, record, count, run) for search, record in zip(own, theirs, strict=True)]
        for found, chosen in _choices(own, made, theirs, out, together):
            choices += found
            if chosen is None:
                continue
            _write(chosen.path, [chosen], options)
            best.append(chosen)
    if len(searches) > 1:
        click.echo(summary(choices))
        for path in dict.fromkeys(chosen.of_all for chosen in best):
            _write(path, [chosen for chosen in best if chosen.of_all == path], options)
    return 0 if all(choice.best for choice in choices) else 1


@dataclass(frozen=True)
class _Best:
    """A method's best settings.

    Attributes:
        method: Its name.
        tasks: What they were chosen for.
        settings: The user's own, and what was drawn.
        about: What they were chosen on.
        path: Their own file.
        of_all: The file that they share with the other methods of the command.
    """

    method: str
    tasks: Sequence[str]
    settings: Mapping[str, Any]
    about: Sequence[str]
    path: Path
    of_all: Path


def _searches(
    names: Sequence[str],
    tasks: Sequence[str],
    planner: Planner,
    users: HeldOut,
    space_file: Path | None,
    flags: Sequence[str],
    together: bool,
) -> list[list[Search]]:
    """The searches of each method; of several methods, those without a space are left out."""
    from lampbench.tune import NoSpaceError

    chosen, made = overrides(names, {}, flags, None), []
    for method in names:
        try:
            searches = _searches_of(method, names, tasks, planner, users, space_file, chosen, together)
        except NoSpaceError as error:
            if len(names) == 1:
                raise
            note(f"left out: {error.reason}")
            continue
        made += [searches] if searches else []
    if not made:
        raise InputError("nothing to tune: every method, or task, was left out")
    return made


def _searches_of(
    method: str,
    names: Sequence[str],
    tasks: Sequence[str],
    planner: Planner,
    users: HeldOut,
    space_file: Path | None,
    chosen: Overrides,
    together: bool,
) -> list[Search]:
    from lampbench.tune import Search, read_space, space_of

    kind = load_method(method)
    own = chosen.of(method, kind)
    config = config_from(kind.Config, own, method)
    # Of KEY.INNER, the whole of KEY is fixed.
    fixed = {name: getattr(config, name) for name in {key.partition(".")[0] for key in own}}
    given = read_space(space_file, method, kind, fixed, names) if space_file else None
    searches = []
    for name in tasks:
        preset = planner.plan(method, name, fixed)
        if isinstance(preset, Skip):
            note(f"skipped: {method} on {name}: {preset.reason}")
            continue
        context = RunContext(users.origin, preset.backbone.shape if preset.backbone else None)
        space = given or space_of(method, kind, preset.task, context, fixed)
        searches.append(Search(planner, preset, space, fixed, together))
    if together and any(search.space != searches[0].space for search in searches):
        raise InputError(f"--together: {method} has another space on each task; name one: --space FILE.toml")
    return searches


def _record(search: Search, held_out: float, out: Path, force: bool) -> Record:
    from lampbench.tune import Record

    named = {name: value for name, value in search.preset.identity.items() if name != "config"}
    named |= {"held_out": held_out, "set": search.fixed, "space": search.space.candidates}
    if search.together:
        named["together"] = True
    return Record(out, named, force=force)


def _carry_out(search: Search, record: Record, count: int, run: Callable[[Plan], RunRow]) -> list[Trial]:
    """Try ``count`` settings, record and report them."""
    from lampbench.tune import best_of, report

    made: list[Trial] = []
    name = f"{search.preset.task.name} {search.preset.method}"
    for trial in islice(search.trials(run, lambda text: note(f"{name} {text}")), count):
        made.append(trial)
        record.write(made, best_of(made))
    best = best_of(made)
    record.write(made, best, exhausted=len(made) < count)
    click.echo(report(search, made, best, count))
    return made


def _choices(
    searches: Sequence[Search], made: Sequence[Sequence[Trial]], records: Sequence[Record], out: Path, together: bool
) -> Iterator[tuple[list[Choice], _Best | None]]:
    """A method's best trials, and settings: for each task, or for all of them."""
    if together:
        yield _choice_together(searches, made, out)
        return
    for search, trials, record in zip(searches, made, records, strict=True):
        yield _choice(search, trials, record, out)


def _choice(search: Search, trials: Sequence[Trial], record: Record, out: Path) -> tuple[list[Choice], _Best | None]:
    """The best settings for one task."""
    from lampbench.tune import Choice, about, best_of

    choice = Choice.of(search, trials, best_of(trials))
    if choice.best is None:
        click.echo("no trial gave a result that can be chosen")
        return [choice], None
    task, settings = search.preset.task.name, {**search.fixed, **choice.best.settings}
    return [choice], _Best(
        choice.method, [task], settings, about(choice), record.best_path, out / task / record.best_path.name
    )


def _choice_together(
    searches: Sequence[Search], made: Sequence[Sequence[Trial]], out: Path
) -> tuple[list[Choice], _Best | None]:
    """The best settings for all tasks."""
    from lampbench.tune import Choice, best_shared, shared_about, shared_report, shared_trials

    shared = shared_trials(made)
    best = best_shared(shared)
    trials = best.trials if best else [None] * len(searches)
    choices = [Choice.of(*own) for own in zip(searches, made, trials, strict=True)]
    if best is None:
        click.echo("no settings gave a result that can be chosen on every task")
        return choices, None
    click.echo(shared_report(searches, shared, best))
    method, tasks = choices[0].method, [search.preset.task.name for search in searches]
    settings = {**searches[0].fixed, **best.trials[0].settings}
    said = shared_about(searches, shared, best)
    return choices, _Best(method, tasks, settings, said, out / f"{method}.toml", out / "best.toml")


def _write(path: Path, chosen: Sequence[_Best], options: Mapping[str, Any]) -> None:
    """Write the best settings of one method, or of several, for the same tasks."""
    from lampbench.tune import write_best

    names = ",".join(dict.fromkeys(_named(task) for own in chosen for task in own.tasks))
    if len(chosen) == 1:
        lines = list(chosen[0].about)
    else:
        lines = [f"{own.method}: {own.about[0].rstrip(',')}" for own in chosen]
    write_best(path, {"task": names, **options}, {own.method: own.settings for own in chosen}, lines)
    command = f"lampbench run --config {shlex.quote(str(path))}{plugin_words()}"
    click.echo("\n".join([*(lines if len(chosen) == 1 else []), command]))


def _named(task: str) -> str:
    """What names the task to another command: of a task that a file describes, the file."""
    plugin = tasks().plugin(task)
    return plugin.value if plugin.load().definition is not None else task
