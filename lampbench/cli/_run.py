"""``lampbench run``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lampbench.api import (
    BASELINE,
    ProgressReporter,
    Results,
    Tokens,
    data_of_plans,
    duration,
    estimate,
    executor_of,
    method_names,
    overrides,
    placed,
    plans_of,
    short_names,
    task_names,
)
from lampbench.cli._flags import Grouped, config_flag, flag, setting_flags, settings_of
from lampbench.cli._options import (
    cache_option,
    k_option,
    method_option,
    note,
    set_option,
    task_option,
    use_cache,
    where_words,
)
from lampbench.core import config_to_json
from lampbench.data import SYNTHETIC
from lampbench.runner import Plan, Planner, RunFolder, Settings, Steps, has_shared_stage


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
    names = method_names(method, note)
    chosen = overrides(names, file_set, method_settings, k)
    reporter = ProgressReporter(quiet=settings.quiet)
    planner = Planner(settings, say=reporter.say, force=force)
    plans = plans_of(planner, names, task_names(task, note), chosen, note)
    if dry_run:
        counted: dict[tuple[str, bool], Tokens] = {}
        for plan in plans:
            click.echo(_plan_text(plan, planner, _tokens(plan, counted)))
        return 0
    rows = executor_of(settings, reporter).run_all(plans, force=force)
    data = data_of_plans({plan.run_id: plan.dataset for plan in plans})
    click.echo(_end_text(Results(rows, [plan.folder for plan in plans], data), settings))
    return 0 if all(row.status == "success" for row in rows) else 1


def _end_text(results: Results, settings: Settings) -> str:
    """What a finished command prints: results, what to know of them, and what to do next."""
    label = results.rows[0].data.label
    blocks = [f"{label}: {SYNTHETIC}"] if label else []
    blocks += [str(results)]
    out, folders = settings.out, results.folders
    pattern = out / settings.protocol / "<task>" / "<method>" / "<run>"
    lines = [f"Run folder: {folders[0]}" if len(folders) == 1 else f"Run folders: {pattern}"]
    done = [folder for row, folder in zip(results, folders, strict=True) if row.status == "success"]
    # Zero-shot first: others are compared with it.
    same_task = [folder for folder in done if folder.parts[-3] == done[0].parts[-3]]
    same_task.sort(key=lambda folder: folder.parts[-2] != BASELINE)
    calls = short_names(same_task, out)
    if len(calls) > 1:
        lines.append(f"Compare: lampbench compare {' '.join(calls)}{where_words(out)}")
    if calls:
        lines.append(f"Look at answers: lampbench show {calls[-1]}{where_words(out, settings.data)}")
        if BASELINE not in {folder.parts[-2] for folder in folders}:
            lines.append(f"See what was gained: add {BASELINE} to --method; runs that are finished are kept")
    return "\n" + "\n\n".join([*blocks, "\n".join(lines)])


def _plan_text(plan: Plan, planner: Planner, tokens: Tokens | None) -> str:
    data = plan.dataset
    row = RunFolder(plan.folder).row()
    guess = estimate(plan, tokens, planner.weights)
    facts = {
        "run id": plan.run_id,
        "folder": f"{plan.folder} ({row.status if row else 'new'})",
        "users": f"{len(data.users)} evaluated, {len(data.shared)} shared",
        "protocol": f"{planner.settings.protocol} {data.hash}",
        "queries": f"{len(data.queries)} evaluated, {sum(len(user.queries) for user in data.shared)} shared",
        "tokens": _token_text(plan, tokens),
        "optimizer steps per user": Steps.of(plan.config, data.evaluated) or "none",
        "time": f"about {duration(guess.seconds)} ({guess.basis})" if guess else "not known",
        "config": json.dumps(config_to_json(plan.config)),
        "model": _model_text(plan.identity["backbone"]),
        "decoding": json.dumps(plan.identity["decoding"]) if plan.decoding else "none",
        "seed": plan.identity["seed"],
    }
    return "\n".join([f"{plan.task.name} {plan.method}", *(f"  {key}: {value}" for key, value in facts.items())])


def _model_text(backbone: Mapping[str, Any] | None) -> str:
    if backbone is None:
        return "none"
    quantized = f", {backbone['quantization']}" if "quantization" in backbone else ""
    return f"{backbone['id']}, {backbone['dtype']}{quantized} on {backbone['device']}, revision {backbone['revision']}"


def _tokens(plan: Plan, counted: dict[tuple[str, bool], Tokens]) -> Tokens | None:
    """Tokens of the plan's texts, counted once for methods that read the same; None if no model runs here."""
    from lampbench.backbone import BackboneInfo, load_tokenizer

    if plan.decoding is None or not isinstance(plan.backbone, BackboneInfo):
        return None
    key = plan.task.name, has_shared_stage(plan)
    if key not in counted:
        counted[key] = Tokens.of(plan, plan.decoding.encoder(load_tokenizer(plan.backbone), plan.backbone))
    return counted[key]


def _token_text(plan: Plan, tokens: Tokens | None) -> str:
    if plan.backbone is None:
        return "none (no language model)"
    if tokens is None:
        return "not known before the server counts them"
    return (
        f"{tokens.prompts:,} in plain prompts (longest {tokens.longest}), "
        f"{tokens.histories:,} in histories as training examples"
    )
