"""``lampbench tune``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lampbench.cli._options import cache_option, overrides, task_names, use_cache
from lampbench.core import InputError, RunContext, config_from
from lampbench.rows import RunRow
from lampbench.runner import Plan, Planner, Session, Settings, Skip, limit_memory, load_method

if TYPE_CHECKING:
    from lampbench.tune import HeldOut, Record, Search, Trial

_MOST = click.FloatRange(min=0, max=1e9, min_open=True)
# What a run of the best settings needs to know again.
_KEPT = ("data", "model", "revision", "dtype", "decoding", "engine", "trust_remote_code")


@click.command()
@click.argument("method")
@click.option("--task", required=True, help="Tasks, comma-separated, or all; each is searched by itself.")
@click.option(
    "--trials", type=click.IntRange(min=1), default=20, show_default=True, help="Runs; the first: the preset."
)
@click.option("--space", type=click.Path(path_type=Path), help="TOML file: SETTING = [VALUES]. Default: the method's.")
@click.option("--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting that every trial has.")
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="The share of the shared users who are asked.",
)
@click.option("--users", type=click.IntRange(min=1), help="Only the first N held-out users.")
@click.option("--protocol", default="mini", show_default=True, help="Whose shared users: NAME or NAME,KEY=VALUE.")
@click.option("--data", type=click.Path(path_type=Path), help="The protocol's data folder.")
@cache_option
@click.option("--strict", is_flag=True, default=None, help="Refuse data in which a leak check finds something.")
@click.option("--model", help="Backbone: a folder or hub id. Default: the protocol's, if it has one.")
@click.option("--revision", help="The backbone's revision on the hub.")
@click.option("--seed", type=int, default=0, show_default=True, help="Who is held out, what is drawn, and the runs'.")
@click.option("--decoding", type=click.Choice(["greedy", "sampled", "labels"]), help="Default greedy.")
@click.option("--engine", type=click.Choice(["stacked", "solo"]), help="How adapters train. Default stacked.")
@click.option("--dtype", help="auto, float32, bfloat16 or float16. Default auto.")
@click.option("--device", help="auto, cpu, cuda, cuda:1 … Default auto.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Prompts a forward pass. Default 32.")
@click.option(
    "--time-limit", type=_MOST, metavar="SECONDS", help="The longest a trial may take; it is failed, and kept."
)
@click.option(
    "--memory-limit", type=_MOST, metavar="GIB", help="What trials may hold. Default: on the CPU what is free."
)
@click.option("--trust-remote-code", is_flag=True, default=None, help="Let code that comes with the model run.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("tuning"), show_default=True, help="Its folder.")
@click.option("--force", is_flag=True, help="Run finished trials again, and forget another search in the folder.")
def tune(
    method: str, task: str, trials: int, space: Path | None, flags: Sequence[str], held_out: float, out: Path,
    cache: Path | None, force: bool, **options: Any,
) -> int:  # fmt: skip
    """Choose METHOD's settings by a random search on held-out shared users.

    Evaluated users have no part in it: of the protocol's shared users some are held out, adapted and asked as
    evaluated users are, and the others stay shared. The best settings are a file for lampbench run. The same command
    again keeps what is finished and continues what is not; more --trials go on.

    \b
    lampbench tune perfit --task lamp5 --trials 20
    lampbench run --config tuning/lamp5/perfit/best.toml
    """
    from lampbench.cli._progress import ProgressReporter
    from lampbench.tune import HeldOut

    use_cache(cache)
    given = {name: value for name, value in options.items() if value is not None}
    users = HeldOut(given["protocol"], held_out, given["seed"])
    settings = Settings(**{**given, "protocol": users.name, "out": out / "trials"})
    planner = Planner(settings, say=lambda text: click.echo(text, err=True), protocol=users)
    kept = {name.replace("_", "-"): given[name] for name in _KEPT if name in given}
    searches = _searches(method, task_names(task), planner, users, space, flags)
    # What an earlier command left is looked at before the first trial starts.
    records = [_record(search, held_out, out, force) for search in searches]
    device = next((search.preset.backbone.device for search in searches if search.preset.backbone), "cpu")
    limit_memory(settings.memory_limit, device)
    run = partial(Session(planner, ProgressReporter()).run, force=force)
    found = [
        _carry_out(search, record, max(trials, record.recorded), run, {"protocol": users.base_name, **kept})
        for search, record in zip(searches, records, strict=True)
    ]
    return 0 if all(found) else 1


def _searches(
    method: str, tasks: Sequence[str], planner: Planner, users: HeldOut, space_file: Path | None, flags: Sequence[str]
) -> list[Search]:
    from lampbench.tune import Search, read_space, space_of

    kind = load_method(method)
    chosen = overrides([method], {}, flags, None).of(method, kind)
    config = config_from(kind.Config, chosen, method)
    fixed = {name: getattr(config, name) for name in chosen}
    given = read_space(space_file, method, kind, fixed) if space_file else None
    searches = []
    for name in tasks:
        preset = planner.plan(method, name, fixed)
        if isinstance(preset, Skip):
            click.echo(f"skipped: {method} on {name}: {preset.reason}", err=True)
            continue
        context = RunContext(users.origin, preset.backbone.shape if preset.backbone else None)
        space = given or space_of(method, kind, preset.task, context, fixed)
        searches.append(Search(planner, preset, space, fixed))
    if not searches:
        raise InputError("nothing to tune: every task was skipped")
    return searches


def _record(search: Search, held_out: float, out: Path, force: bool) -> Record:
    from lampbench.tune import Record

    named = {name: value for name, value in search.preset.identity.items() if name != "config"}
    named |= {"held_out": held_out, "set": search.fixed, "space": search.space.candidates}
    return Record(out, named, force=force)


def _carry_out(
    search: Search, record: Record, count: int, run: Callable[[Plan], RunRow], options: Mapping[str, Any]
) -> bool:
    """Try so many settings and tell of them; whether one was found that can be chosen."""
    from lampbench.cli._tune_report import about, report
    from lampbench.tune import best_of

    made: list[Trial] = []
    for trial in islice(search.trials(run, lambda text: click.echo(text, err=True)), count):
        made.append(trial)
        record.write(made, best_of(made))
    best = best_of(made)
    record.write(made, best, exhausted=len(made) < count)
    click.echo(report(search, made, best, count))
    if best is None:
        click.echo("no trial gave a result that can be chosen")
        return False
    lines, settings = about(search, made, best), {**search.fixed, **best.settings}
    record.write_best({"method": search.preset.method, "task": search.preset.task.name, **options}, settings, lines)
    click.echo("\n".join([*lines, f"lampbench run --config {record.best_path}"]))
    return True
