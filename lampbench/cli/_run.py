"""``lampbench run``."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lampbench.cli._executor import MakeExecutor, chosen_executor, executor_options, placed
from lampbench.cli._options import cache_option, method_names, overrides, read_config_file, task_names, use_cache
from lampbench.core import InputError, config_to_json, convert
from lampbench.runner import Plan, Planner, RunFolder, Settings, Skip, load_method

_DECODING = click.Choice(["greedy", "sampled", "labels"])
_ENGINE = click.Choice(["stacked", "solo"])
# Seconds, or GiB: what timers and the system still take.
_MOST = 1e9


@click.command()
@click.option("--method", help="Methods, comma-separated, or all.")
@click.option("--task", help="Tasks, comma-separated, or all.")
@click.option("--protocol", help="Which users and queries: NAME or NAME,KEY=VALUE. Default mini, the bundled suite.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="The protocol's data folder: of LaMP_5 and so on, or of OPPU's."
)
@cache_option
@click.option("--strict", is_flag=True, default=None, help="Refuse data in which a leak check finds something.")
@click.option("--model", help="Backbone: a folder or hub id. Default: the protocol's, if it has one.")
@click.option("--revision", help="The backbone's revision on the hub.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A method's setting, or METHOD.KEY=VALUE.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file of these options; flags win.")
@click.option("--seed", type=int, help="Everything random derives from it. Default 0.")
@click.option("--users", type=click.IntRange(min=1), help="Only the first N evaluated users.")
@click.option("--swap-test", is_flag=True, default=None, help="Also answer with another user's state: what is left?")
@click.option("--k", help="History items in the prompt, for methods that have k.")
@click.option("--decoding", type=_DECODING, help="How answers are made. Default greedy.")
@click.option("--engine", type=_ENGINE, help="How adapters train: stacked (default), or solo, user by user.")
@click.option("--dtype", help="auto, float32, bfloat16 or float16. Default auto.")
@click.option("--device", help="auto, cpu, cuda, cuda:1 … Default auto.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Prompts a forward pass. Default 32.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="The longest a run may take; it is failed, and kept.")
@click.option("--memory-limit", type=float, metavar="GIB", help="What runs may hold. Default: on the CPU what is free.")
@executor_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder of run folders. Default runs/.")
@click.option("--trust-remote-code", is_flag=True, default=None, help="Let code that comes with the model run.")
@click.option("--force", is_flag=True, help="Delete earlier work of the same run and start over.")
@click.option("--dry-run", is_flag=True, help="Print what would run; load no weights.")
def run(settings: Sequence[str], config_file: Path | None, force: bool, dry_run: bool, **flags: Any) -> int:
    """Run methods on tasks and measure them.

    The same command again keeps what is finished and continues what is not.

    \b
    lampbench run --method perfit --task lamp5
    lampbench run --method perfit --task lamp5 --protocol folder --data DIR --model DIR
    lampbench run --method all --task lamp3,lamp5 --set rag.k=4 --set learning_rate=5e-3
    """
    given = read_config_file(config_file) if config_file else {}
    given |= {name.replace("_", "-"): value for name, value in flags.items() if value is not None}
    for required in ("method", "task"):
        if required not in given:
            raise InputError(f"--{required} is missing; see lampbench run --help")
    use_cache(given.get("cache"))
    executor = chosen_executor(given)
    names = method_names(given["method"])
    chosen = overrides(names, given.get("set", {}), settings, given.get("k"))
    planner = Planner(_settings(given), say=lambda text: click.echo(text, err=True))
    plans: list[Plan] = []
    for task in task_names(given["task"]):
        for name in names:
            plan = planner.plan(name, task, chosen.of(name, load_method(name)))
            if isinstance(plan, Skip):
                click.echo(f"skipped: {name} on {task}: {plan.reason}", err=True)
            else:
                plans.append(plan)
    if not plans:
        raise InputError("nothing to run: every method was skipped")
    if dry_run:
        for plan in plans:
            click.echo(_plan_text(plan, planner))
        return 0
    return _run_all(plans, planner, executor, force)


def _run_all(plans: Sequence[Plan], planner: Planner, executor: MakeExecutor, force: bool) -> int:
    from lampbench.cli._progress import ProgressReporter
    from lampbench.cli._table import run_notes, run_table

    if not force:
        for plan in plans:
            # What an earlier command left is checked before the first run starts, not hours later.
            folder = RunFolder(plan.folder)
            folder.row(), folder.journal(), folder.predictions()
    rows = executor(planner, ProgressReporter()).run_all(plans, force=force)
    label = rows[0].data.label
    if label:
        click.echo(f"\n{label}: invented users; these scores compare with no score on LaMP")
    click.echo(f"\n{run_table(rows)}\n")
    for note in run_notes(rows):
        click.echo(f"note: {note}")
    if len(plans) == 1:
        click.echo(f"Run folder: {plans[0].folder}")
    else:
        click.echo(f"Run folders: {planner.settings.out / planner.settings.protocol}/<task>/<method>/<run>")
    return 0 if all(row.status == "success" for row in rows) else 1


def _settings(given: Mapping[str, Any]) -> Settings:
    """The run's settings, each typed as ``Settings`` declares it, whether from a flag or the file."""
    hints = typing.get_type_hints(Settings)
    given = placed(given)
    named = {name: given[name.replace("_", "-")] for name in hints if name.replace("_", "-") in given}
    settings = Settings(**{name: convert(value, hints[name], name) for name, value in named.items()})
    for name in ("batch_size", "users"):
        number = getattr(settings, name)
        if number is not None and number < 1:
            raise InputError(f"{name} must be at least 1, found {number}")
    for name in ("time_limit", "memory_limit"):
        number = getattr(settings, name)
        if number is not None and not 0 < number <= _MOST:
            raise InputError(f"{name} must be more than 0 and at most {_MOST:g}, found {number:g}")
    return settings


def _plan_text(plan: Plan, planner: Planner) -> str:
    data = planner.evaluated(plan)
    row = RunFolder(plan.folder).row()
    facts = {
        "run id": plan.run_id,
        "folder": f"{plan.folder} ({row.status if row else 'new'})",
        "users": f"{len(data.users)} evaluated, {len(data.shared)} shared",
        "protocol": f"{planner.settings.protocol} {data.hash}",
        "queries": f"{len(data.queries)} evaluated, {sum(len(user.queries) for user in data.shared)} shared",
        "tokens": _token_text(plan, planner),
        "config": json.dumps(config_to_json(plan.config)),
        "identity": json.dumps(plan.identity),
    }
    return "\n".join([f"{plan.task.name} {plan.method}", *(f"  {key}: {value}" for key, value in facts.items())])


def _token_text(plan: Plan, planner: Planner) -> str:
    if plan.backbone is None:
        return "none (no language model)"
    from lampbench.backbone import PromptEncoder, load_tokenizer

    encoder = PromptEncoder(load_tokenizer(plan.backbone), plan.backbone.shape.context)
    data = planner.evaluated(plan)
    prompts = [len(encoder.prompt(plan.task.prompt(q.text, q.id), plan.task.max_new_tokens)) for q in data.queries]
    pairs = [encoder.pair(plan.task.pair(item)) for user in data.users for item in user.history]
    return (
        f"{sum(prompts):,} in plain prompts (longest {max(prompts)}), "
        f"{sum(len(prompt) + len(target) for prompt, target in pairs):,} in histories as training examples"
    )
