"""``lampbench run``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lampbench.cli._executor import executor_of, placed
from lampbench.cli._flags import Grouped, config_flag, flag, setting_flags, settings_of
from lampbench.cli._options import (
    cache_option,
    k_option,
    method_names,
    method_option,
    overrides,
    set_option,
    task_names,
    task_option,
    use_cache,
)
from lampbench.core import InputError, config_to_json
from lampbench.runner import Plan, Planner, RunFolder, Skip, Steps, load_method


@click.command(cls=Grouped)
@method_option
@task_option
@set_option
@k_option
@config_flag
@flag("--force", in_file=False, is_flag=True, help="Delete earlier work of the same run and start over.")
@flag("--dry-run", in_file=False, is_flag=True, help="Print what would run; load no weights.")
@setting_flags("run")
@cache_option
def run(
    method: str, task: str, method_settings: Sequence[str], k: Any, file_set: Mapping[str, Any], force: bool,
    dry_run: bool, cache: Path | None, **flags: Any,
) -> int:  # fmt: skip
    """Run methods on tasks and measure them.

    Repeat the command to resume: finished work is kept.

    \b
    lampbench run --method perfit --task lamp5
    lampbench run --method perfit --task lamp5 --protocol folder --data DIR --model DIR
    lampbench run --method all --task lamp3,lamp5 --set rag.k=4 --set learning_rate=5e-3
    """
    use_cache(cache)
    settings = placed(settings_of(flags))
    names = method_names(method)
    chosen = overrides(names, file_set, method_settings, k)
    planner = Planner(settings, say=lambda text: click.echo(text, err=True))
    plans: list[Plan] = []
    for own in task_names(task):
        for name in names:
            plan = planner.plan(name, own, chosen.of(name, load_method(name)))
            if isinstance(plan, Skip):
                click.echo(f"skipped: {name} on {own}: {plan.reason}", err=True)
            else:
                plans.append(plan)
    if not plans:
        raise InputError("nothing to run: every method was skipped")
    if dry_run:
        for plan in plans:
            click.echo(_plan_text(plan, planner))
        return 0
    return _run_all(plans, planner, force)


def _run_all(plans: Sequence[Plan], planner: Planner, force: bool) -> int:
    from lampbench.cli._table import run_notes, run_table

    rows = executor_of(planner.settings).run_all(plans, force=force)
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


def _plan_text(plan: Plan, planner: Planner) -> str:
    data = plan.dataset
    row = RunFolder(plan.folder).row()
    facts = {
        "run id": plan.run_id,
        "folder": f"{plan.folder} ({row.status if row else 'new'})",
        "users": f"{len(data.users)} evaluated, {len(data.shared)} shared",
        "protocol": f"{planner.settings.protocol} {data.hash}",
        "queries": f"{len(data.queries)} evaluated, {sum(len(user.queries) for user in data.shared)} shared",
        "tokens": _token_text(plan, planner),
        "optimizer steps per user": Steps.of(plan.config, data.evaluated) or "none",
        "config": json.dumps(config_to_json(plan.config)),
        "identity": json.dumps(plan.identity),
    }
    return "\n".join([f"{plan.task.name} {plan.method}", *(f"  {key}: {value}" for key, value in facts.items())])


def _token_text(plan: Plan, planner: Planner) -> str:
    if plan.backbone is None or plan.decoding is None:
        return "none (no language model)"
    from lampbench.backbone import ServedInfo, load_tokenizer

    if isinstance(plan.backbone, ServedInfo):
        return "not known before the server counts them"
    encoder = plan.decoding.encoder(load_tokenizer(plan.backbone), plan.backbone)
    data = plan.dataset
    prompts = [len(encoder.prompt(plan.task.prompt(q.text, q.id), plan.task.max_new_tokens)) for q in data.queries]
    pairs = [encoder.pair(plan.task.pair(item)) for user in data.users for item in user.history]
    return (
        f"{sum(prompts):,} in plain prompts (longest {max(prompts)}), "
        f"{sum(len(prompt) + len(target) for prompt, target in pairs):,} in histories as training examples"
    )
