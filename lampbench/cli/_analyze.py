"""``lampbench analyze``."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lampbench.api import ProgressReporter, overrides
from lampbench.cli._flags import Grouped, changed_settings, flag, setting_flags, settings_of
from lampbench.cli._options import cache_option, for_tasks, k_option, set_option, task_option, use_cache
from lampbench.core import convert
from lampbench.runner import Planner, Settings, limit_memory, load_method

if TYPE_CHECKING:
    from lampbench.analysis import Request, TaskShifts
    from lampbench.backbone import TransformersBackbone


# What a run with the recommended settings needs to know again.
_KEPT = ("protocol", "data", "model", "revision", "dtype", "chat", "system", "max_length", "trust_remote_code")


@click.group()
def analyze() -> None:
    """Look into what personalization does to a model."""


@analyze.command(cls=Grouped)
@task_option
@flag("--layers", default="all", help="Decoder layers, counted from 0, comma-separated.")
@flag("--context", default="rag", help="The method whose prompt is the personalized one.")
@k_option
@set_option
@flag(
    "--source",
    type=click.Choice(["queries", "history"]),
    default="queries",
    help="Ask the evaluated queries, or history items, each after strictly earlier ones.",
)
@flag(
    "--queries",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most N queries per user; with --source history, the latest.",
)
@flag(
    "--draws",
    type=click.IntRange(min=20),
    metavar="N",
    help="Resamples for intervals. Default: 1000, fewer for many users.",
)
@flag("--recommend", is_flag=True, help="Also write a perfit.toml per task for lampbench run --config.")
@setting_flags("analyze", out={"default": None, "required": True})
@cache_option
def shifts(
    task: str, layers: str, context: str, source: Any, queries: int | None, k: Any, method_settings: Sequence[str],
    draws: int | None, recommend: bool, cache: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Measure PerFit's two observations.

    The vectors by which personalization shifts hidden states have a low rank, and each is the sum of a shift that all
    users share and a shift of the user's own. Repeat the command to resume: finished delta vectors are kept.

    \b
    lampbench analyze shifts --task lamp5 --out shifts
    lampbench analyze shifts --task all --protocol folder --data DIR --model DIR --out shifts --recommend
    """
    from lampbench.analysis import Asking, resolve

    use_cache(cache)
    settings = settings_of(flags)
    asking = Asking(
        context=context,
        overrides=overrides([context], {}, method_settings, k).of(context, load_method(context)),
        layers=None if layers == "all" else convert(layers, tuple[int, ...], "--layers"),
        source=source,
        most=queries,
    )
    planner = Planner(settings, say=lambda text: click.echo(text, err=True))
    # Names, data and layers of every task are checked before any weights are loaded.
    requests = for_tasks(task, lambda own: resolve(planner, own.name, asking))
    measured = _measure_all(requests, settings, draws)
    _tell(measured, settings.out)
    if recommend:
        _recommend(measured, settings)


def _measure_all(requests: Sequence[Request], settings: Settings, draws: int | None) -> list[TaskShifts]:
    from lampbench.analysis import collect, measure
    from lampbench.backbone import Decoding, TransformersBackbone

    limit_memory(settings.memory_limit, requests[0].backbone.device)
    reporter = ProgressReporter(quiet=settings.quiet)

    @functools.cache
    def load() -> TransformersBackbone:
        info, decoding = requests[0].backbone, requests[0].plan.decoding or Decoding()
        return TransformersBackbone.load(info, decoding=decoding, batch_size=settings.batch_size, seed=settings.seed)

    found = []
    for request in requests:
        with reporter.phase(f"{request.plan.task.name} vectors", len(request.data.users)) as bar:
            deltas = collect(request, load, settings.out / "deltas", bar.move)
        with reporter.phase(f"{request.plan.task.name} spectra", len(request.layers)) as bar:
            found.append(measure(deltas, draws, bar.move))
    return found


def _tell(measured: Sequence[TaskShifts], out: Path) -> None:
    from tabulate import tabulate

    from lampbench.analysis import summary, write_report

    page = write_report(measured, out)
    for label in sorted({own.label for own in measured if own.label}):
        click.echo(f"\n{label}: invented users; these numbers cannot be compared with any on LaMP")
    for centring in ("raw", "centred"):
        table = summary(measured, centring)
        click.echo(f"\n{table.title}\n{tabulate(table.rows, headers=table.headers, disable_numparse=True)}")
    click.echo(f"\nReport: {page}")


def _recommend(measured: Sequence[TaskShifts], settings: Settings) -> None:
    from lampbench.analysis import to_toml

    options = changed_settings(settings, _KEPT)
    click.echo()
    for own in measured:
        name = " ".join(part for part in (own.label, own.task) if part)
        text = to_toml(name, own.recommendation, {"method": "perfit", "task": own.task, **options})
        target = settings.out / own.task / "perfit.toml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        click.echo(f"lampbench run --config {shlex.quote(str(target))}")
