"""``lampbench tune``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lampbench.api import ProgressReporter, overrides, task_names
from lampbench.cli._flags import Grouped, Typed, changed_settings, completes, flag, setting_flags, settings_of
from lampbench.cli._options import cache_option, note, set_option, task_option, use_cache
from lampbench.core import InputError, RunContext, config_from, methods
from lampbench.rows import RunRow
from lampbench.runner import LocalExecutor, Plan, Planner, Skip, limit_memory, load_method

if TYPE_CHECKING:
    from lampbench.tune import HeldOut, Record, Search, Trial

# What a run of the best settings needs to know again.
_KEPT = (
    "data", "model", "revision", "dtype", "tokenizer", "quantize", "decoding", "chat", "system", "thinking",
    "max_length", "repetition_penalty", "no_repeat_ngram", "prompts", "engine", "trust_remote_code",
)  # fmt: skip


@click.command(cls=Grouped)
@click.argument("method", shell_complete=completes(methods))
@task_option
@flag("--trials", type=click.IntRange(min=1), default=20, metavar="N", help="Runs; the first is the preset.")
@flag(
    "--space",
    type=Typed(Path),
    metavar="PATH",
    help="A TOML file with lines SETTING = [VALUES]. Default: the method's own.",
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

    Evaluated users are never used: some of the protocol's shared users are held out and take their place, and the
    others stay shared. The best settings are a file for lampbench run. The same command
    again keeps finished trials and continues; more --trials continue an earlier search.

    \b
    lampbench tune perfit --task lamp5 --trials 20
    lampbench run --config tuning/lamp5/perfit/best.toml
    """
    from lampbench.tune import HeldOut

    use_cache(cache)
    method = methods().canonical(method) or method
    users = HeldOut(flags["protocol"], held_out, flags["seed"])
    settings = settings_of(flags, protocol=users.name, out=out / "trials")
    planner = Planner(settings, say=note, protocol=users)
    options = {"protocol": users.base_name, **changed_settings(settings, _KEPT)}
    searches = _searches(method, task_names(task, note), planner, users, space, method_settings, together)
    # What an earlier command left is looked at before the first trial starts.
    records = [_record(search, held_out, out, force) for search in searches]
    device = next((search.preset.backbone.device for search in searches if search.preset.backbone), "cpu")
    limit_memory(settings.memory_limit, device)
    run = partial(LocalExecutor(ProgressReporter(quiet=settings.quiet)).run, force=force)
    count = max(trials, *(record.recorded for record in records))
    made = [_carry_out(search, record, count, run) for search, record in zip(searches, records, strict=True)]
    if together:
        return 0 if _choose_together(searches, made, out, options) else 1
    chosen = [_choose(*own, options) for own in zip(searches, made, records, strict=True)]
    return 0 if all(chosen) else 1


def _searches(
    method: str,
    tasks: Sequence[str],
    planner: Planner,
    users: HeldOut,
    space_file: Path | None,
    flags: Sequence[str],
    together: bool,
) -> list[Search]:
    from lampbench.tune import Search, read_space, space_of

    kind = load_method(method)
    chosen = overrides([method], {}, flags, None).of(method, kind)
    config = config_from(kind.Config, chosen, method)
    # Of KEY.INNER, the whole of KEY is fixed.
    fixed = {name: getattr(config, name) for name in {key.partition(".")[0] for key in chosen}}
    given = read_space(space_file, method, kind, fixed) if space_file else None
    searches = []
    for name in tasks:
        preset = planner.plan(method, name, fixed)
        if isinstance(preset, Skip):
            note(f"skipped: {method} on {name}: {preset.reason}")
            continue
        context = RunContext(users.origin, preset.backbone.shape if preset.backbone else None)
        space = given or space_of(method, kind, preset.task, context, fixed)
        searches.append(Search(planner, preset, space, fixed, together))
    if not searches:
        raise InputError("nothing to tune: every task was skipped")
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
    for trial in islice(search.trials(run, note), count):
        made.append(trial)
        record.write(made, best_of(made))
    best = best_of(made)
    record.write(made, best, exhausted=len(made) < count)
    click.echo(report(search, made, best, count))
    return made


def _choose(search: Search, made: Sequence[Trial], record: Record, options: Mapping[str, Any]) -> bool:
    """Write the best settings for one task; tells whether there are any."""
    from lampbench.tune import about, best_of

    best = best_of(made)
    if best is None:
        click.echo("no trial gave a result that can be chosen")
        return False
    _write(record.best_path, [search], best.settings, about(search, made, best), options)
    return True


def _choose_together(
    searches: Sequence[Search], made: Sequence[Sequence[Trial]], out: Path, options: Mapping[str, Any]
) -> bool:
    """Write the best settings for all tasks; tells whether there are any."""
    from lampbench.tune import best_shared, shared_about, shared_report, shared_trials

    trials = shared_trials(made)
    best = best_shared(trials)
    if best is None:
        click.echo("no settings gave a result that can be chosen on every task")
        return False
    click.echo(shared_report(searches, trials, best))
    path = out / f"{searches[0].preset.method}.toml"
    _write(path, searches, best.trials[0].settings, shared_about(searches, trials, best), options)
    return True


def _write(
    path: Path,
    searches: Sequence[Search],
    chosen: Mapping[str, Any],
    lines: Sequence[str],
    options: Mapping[str, Any],
) -> None:
    from lampbench.tune import write_best

    names = ",".join(search.preset.task.name for search in searches)
    own = {"method": searches[0].preset.method, "task": names, **options}
    write_best(path, own, {**searches[0].fixed, **chosen}, lines)
    click.echo("\n".join([*lines, f"lampbench run --config {path}"]))
