"""``lampbench analyze``."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lampbench.cli._options import cache_option, for_tasks, overrides, use_cache
from lampbench.core import convert
from lampbench.runner import Planner, Settings, limit_memory, load_method

if TYPE_CHECKING:
    from lampbench.analysis import Request, TaskShifts
    from lampbench.backbone import TransformersBackbone


@click.group()
def analyze() -> None:
    """Look into what personalization does to a model."""


@analyze.command()
@click.option("--task", required=True, help="Tasks, comma-separated, or all.")
@click.option("--protocol", default="mini", help="Which users and queries. Default mini, the bundled suite.")
@click.option("--data", type=click.Path(path_type=Path), help="The protocol's data folder.")
@cache_option
@click.option("--model", help="Backbone: a folder or hub id. Default: the protocol's, if it has one.")
@click.option("--revision", help="The backbone's revision on the hub.")
@click.option("--layers", default="all", help="Decoder layers, 0-based, comma-separated. Default all.")
@click.option("--context", default="rag", help="The method whose prompt is the personalized one. Default rag.")
@click.option("--k", help="History items in the prompt, for contexts that have k.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the context's method.")
@click.option(
    "--source",
    type=click.Choice(["queries", "history"]),
    default="queries",
    help="Ask the evaluated queries (default), or history items, each after strictly earlier ones.",
)
@click.option("--queries", type=click.IntRange(min=1), help="At most N queries a user (of the history the latest).")
@click.option("--users", type=click.IntRange(min=1), help="Only the first N evaluated users.")
@click.option(
    "--draws", type=click.IntRange(min=20), help="Resamples for intervals. Default 1000, fewer for many users."
)
@click.option("--seed", type=int, default=0, help="Everything random derives from it. Default 0.")
@click.option("--dtype", default="auto", help="auto, float32, bfloat16 or float16. Default auto.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 … Default auto.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, help="Prompts a forward pass. Default 32.")
@click.option("--trust-remote-code", is_flag=True, help="Let code that comes with the model run.")
@click.option("--recommend", is_flag=True, help="Also write a perfit.toml a task for lampbench run --config.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the report and the vectors.")
def shifts(
    task: str,
    layers: str,
    context: str,
    source: Any,
    queries: int | None,
    k: str | None,
    settings: Sequence[str],
    draws: int | None,
    recommend: bool,
    out: Path,
    cache: Path | None,
    **run: Any,
) -> None:
    """PerFit's two observations: low rank, and a collective and a personalized shift.

    The same command again keeps the delta vectors that are there.

    \b
    lampbench analyze shifts --task lamp5 --out shifts
    lampbench analyze shifts --task all --protocol folder --data DIR --model DIR --out shifts --recommend
    """
    from lampbench.analysis import Asking, resolve

    use_cache(cache)
    asking = Asking(
        context=context,
        overrides=overrides([context], {}, settings, k).of(context, load_method(context)),
        layers=None if layers == "all" else convert(layers, tuple[int, ...], "--layers"),
        source=source,
        most=queries,
    )
    planner = Planner(Settings(**run), say=lambda text: click.echo(text, err=True))
    # Names, data and layers of every task are checked before any weights are loaded.
    requests = for_tasks(task, lambda own: resolve(planner, own.name, asking))
    measured = _measure_all(requests, out, draws)
    _tell(measured, out)
    if recommend:
        _recommend(measured, out, run)


def _measure_all(requests: Sequence[Request], out: Path, draws: int | None) -> list[TaskShifts]:
    from lampbench.analysis import collect, measure
    from lampbench.backbone import Decoding, TransformersBackbone, device_and_dtype
    from lampbench.cli._progress import ProgressReporter

    settings = requests[0].plan.settings
    limit_memory(None, device_and_dtype(settings.device, settings.dtype)[0])
    reporter = ProgressReporter()

    @functools.cache
    def load() -> TransformersBackbone:
        info = requests[0].backbone
        return TransformersBackbone.load(info, decoding=Decoding(), batch_size=settings.batch_size, seed=settings.seed)

    found = []
    for request in requests:
        with reporter.phase(f"{request.plan.task.name} vectors", len(request.data.users)) as bar:
            deltas = collect(request, load, out / "deltas", bar.move)
        with reporter.phase(f"{request.plan.task.name} spectra", len(request.layers)) as bar:
            found.append(measure(deltas, draws, bar.move))
    return found


def _tell(measured: Sequence[TaskShifts], out: Path) -> None:
    from tabulate import tabulate

    from lampbench.analysis import summary, write_report

    page = write_report(measured, out)
    for label in sorted({own.label for own in measured if own.label}):
        click.echo(f"\n{label}: invented users; these numbers compare with none on LaMP")
    for centring in ("raw", "centred"):
        table = summary(measured, centring)
        click.echo(f"\n{table.title}\n{tabulate(table.rows, headers=table.headers, disable_numparse=True)}")
    click.echo(f"\nReport: {page}")


def _recommend(measured: Sequence[TaskShifts], out: Path, run: Mapping[str, Any]) -> None:
    from lampbench.analysis import to_toml

    keys = ("protocol", "data", "model", "revision", "dtype", "trust_remote_code")
    # What is the default needs no line.
    options = {key.replace("_", "-"): run[key] for key in keys if run[key] not in (None, "auto", False)}
    click.echo()
    for own in measured:
        name = " ".join(part for part in (own.label, own.task) if part)
        text = to_toml(name, own.recommendation, {"method": "perfit", "task": own.task, **options})
        target = out / own.task / "perfit.toml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        click.echo(f"lampbench run --config {shlex.quote(str(target))}")
