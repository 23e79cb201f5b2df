"""``lampbench leaderboard``, ``compare`` and ``validate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lampbench.core import InputError

if TYPE_CHECKING:
    from lampbench.leaderboard import Comparison, Result
    from lampbench.rows import Row

_ROOT = click.option(
    "--root",
    default="leaderboards",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The leaderboards' folder.",
)
_GOLDS = click.option(
    "--golds", multiple=True, type=click.Path(path_type=Path), help="LaMP's outputs file; mini's golds are generated."
)
_MOST = 10


@click.group()
def leaderboard() -> None:
    """Collect finished runs and make boards of them."""


@leaderboard.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@_ROOT
def add(runs: Sequence[Path], root: Path) -> None:
    """Copy finished RUNS (run folders, or folders of some) into results/ below --root.

    Row, answers and per-user sums are copied, and no file of the data. What is there stays.
    """
    from lampbench.leaderboard import add as add_run

    for folder in _run_folders(runs):
        target = add_run(folder, root)
        click.echo(f"added {target}" if target else f"there already: {folder}")


@leaderboard.command()
@_ROOT
@click.option("--latex", is_flag=True, help="Also write LaTeX tables.")
@click.option("--site", metavar="DIR", type=click.Path(path_type=Path), help="Also build a static site in DIR.")
def build(root: Path, latex: bool, site: Path | None) -> None:
    """Make the boards of results/ below --root: Markdown, CSV, JSON and an overview.

    Published numbers from reported/ go to published.md and to a page of the site, beside ours and never among
    them; shifts/report.html, made by lampbench analyze shifts, becomes a page of the site. The same results give
    the same bytes.
    """
    from lampbench.leaderboard import boards, read_reported, read_results, reported_page, write_boards

    made, reported = boards(read_results(root)), read_reported(root)
    if not made and not reported:
        raise InputError(f"{root / 'results'}: no results; add finished runs: lampbench leaderboard add RUN")
    written = write_boards(made, root, ("md", "csv", "json", *(("tex",) if latex else ())))
    if reported:
        (root / "published.md").write_text(reported_page(reported, made), encoding="utf-8")
    entries = sum(len(board.entries) for board in made)
    click.echo(f"{len(made)} boards, {entries} entries; {len(written)} files in {root}, start at README.md")
    if site:
        from lampbench.leaderboard.site import write_site

        shifts = root / "shifts" / "report.html"
        pages = write_site(made, site, reported, shifts if shifts.is_file() else None)
        click.echo(f"{len(pages)} files in {site}, start at index.html")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@_GOLDS
def compare(runs: Sequence[Path], golds: Sequence[Path]) -> None:
    """Compare RUNS (run folders or results) with the first of them, query by query.

    \b
    lampbench compare runs/mini/lamp5/zero-shot/ID runs/mini/lamp5/perfit/ID
    """
    from lampbench.leaderboard import KnownGolds, adjusted, read_result
    from lampbench.leaderboard import compare as compare_results

    if len(runs) < 2:
        raise InputError("compare needs two runs or more")
    results = [read_result(folder) for folder in runs]
    names = _names(results)
    made = [
        compare_results([other], results[:1], (name, names[0]))
        for name, other in zip(names[1:], results[1:], strict=True)
    ]
    click.echo(_costs_text(names, results))
    find = KnownGolds(golds)
    for comparison, p, other in zip(made, adjusted(made), results[1:], strict=True):
        click.echo(f"\n{_comparison_text(comparison, p, len(made))}")
        click.echo(_queries_text(comparison, other, results[0], find(results[0].row)))


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@_GOLDS
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of the rows' backbone, to count trainable parameters again. mini's is bundled.",
)
@click.option("--since", metavar="REVISION", help="Report what was changed or removed since this git revision.")
def validate(paths: Sequence[Path], golds: Sequence[Path], models: Sequence[Path], since: str | None) -> int:
    """Check results below PATHS: schema, place, hashes, and every number that can be recomputed.

    Prints one line per fault; the exit status is 1 if there is any.
    """
    from lampbench.leaderboard import KnownGolds, Recount
    from lampbench.leaderboard import validate as faults_of

    known, count = KnownGolds(golds), Recount(models)
    faults = [fault for path in paths for fault in faults_of(path, known, count, since)]
    for fault in faults:
        click.echo(fault)
    rows = sum(len(list(path.rglob("row.json"))) for path in paths)
    click.echo(f"{rows} rows, {len(faults)} faults", err=bool(faults))
    return 1 if faults else 0


def _run_folders(paths: Sequence[Path]) -> list[Path]:
    folders = []
    for path in paths:
        found = sorted(row.parent for row in path.rglob("row.json"))
        if not found:
            raise InputError(f"{path}: no row.json in it; expected a run folder, or a folder of some")
        folders += found
    return folders


def _names(results: Sequence[Result]) -> list[str]:
    """Methods, with the run id where one occurs twice."""
    methods = [result.identity.method for result in results]
    return [
        name if methods.count(name) == 1 else f"{name} {result.row.run_id}"
        for name, result in zip(methods, results, strict=True)
    ]


def _costs_text(names: Sequence[str], results: Sequence[Result]) -> str:
    from tabulate import tabulate

    def cells(name: str, row: Row) -> list[str]:
        cost, metrics = row.cost, row.metrics
        values = [f"{key} {metric.value:.4f}" for key, metric in metrics.items() if metric.value is not None]
        spread = cost.seconds_per_user
        return [
            name,
            ", ".join(values),
            f"{cost.parameters.shared:,}",
            f"{cost.parameters.per_user:,}",
            f"{cost.seconds.fit_shared or 0:.2f}",
            f"{spread.mean:.3f}" if spread else "–",
            f"{cost.seconds.predict or 0:.2f}",
            row.environment.hardware_class,
        ]

    headers = ("run", "scores", "shared params", "params/user", "shared s", "s/user", "predict s", "hardware")
    rows = [cells(name, result.row) for name, result in zip(names, results, strict=True)]
    return tabulate(rows, headers=headers, disable_numparse=True)


def _comparison_text(comparison: Comparison, adjusted_p: float, comparisons: int) -> str:
    lines = [f"{comparison.first} against {comparison.second}"]
    for key, own in comparison.differences.items():
        micro = own.micro
        if micro.value is None:
            lines.append(f"  {key}: not finite")
            continue
        interval = f" [{micro.ci95[0]:+.4f}, {micro.ci95[1]:+.4f}]" if micro.ci95 else ""
        macro = f"; over users {own.macro.value:+.4f}" if own.macro and own.macro.value is not None else ""
        lines.append(f"  {key}: {micro.value:+.4f}{interval}, p={own.p:.4f}{macro}")
    if comparisons > 1:
        lines.append(f"  p of {comparison.task.primary.key} by Holm over {comparisons} comparisons: {adjusted_p:.4f}")
    m = comparison.moved
    lines.append(f"  users helped {m.helped}, unchanged {m.unchanged}, hurt {m.hurt}; worst tenth {m.worst_tenth:+.4f}")
    lines.append(f"  answers that differ: {comparison.changed:.1%}")
    moved = [f"{user} {change:+.3f}" for user, change in comparison.users[:_MOST] if change]
    return "\n".join([*lines, f"  users that moved most (positive is better): {', '.join(moved) or 'none'}"])


def _queries_text(comparison: Comparison, first: Result, second: Result, golds: Mapping[str, str] | None) -> str:
    if golds is None:
        return "  queries that moved most: give the golds (--golds FILE)"
    from lampbench.leaderboard import query_changes

    moved = query_changes(comparison.task, first, second, golds)[:_MOST]
    lines = [f"    {query}: {change:+.3f}" for query, change in moved if change]
    return "\n".join(["  queries that moved most (positive is better):", *(lines or ["    none"])])
