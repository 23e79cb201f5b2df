"""``lampbench leaderboard``, ``compare`` and ``validate``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lampbench.api import find_run, run_names, runs_below
from lampbench.cli._options import out_option, run_argument
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
# The file by which a private board is known.
_PRIVATE = "made-by-lampbench.txt"


@click.group()
def leaderboard() -> None:
    """Collect finished runs and make boards of them."""


@leaderboard.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@_ROOT
def add(runs: Sequence[Path], root: Path) -> int:
    """Copy finished RUNS to results/ below --root.

    RUNS are run folders, or folders that contain some. Row, answers and per-user sums are copied, and no file of the
    data. Existing results stay as they are. Every run that can be added is added; then the others are reported once,
    each with its reason, and the exit status is 2.
    """
    return _add(runs, root)


def _add(runs: Sequence[Path], root: Path, *, private: bool = False) -> int:
    """Add runs to the results below a folder; gives the exit status; of private ones, only failures are told."""
    from lampbench.leaderboard import add as add_run
    from lampbench.leaderboard import code_remark, read_result

    folders, refused = _run_folders(runs)
    added, known = 0, 0
    remarks: dict[str, list[Path]] = {}
    for folder in folders:
        try:
            target = add_run(folder, root, private=private)
        except InputError as error:
            refused.append(str(error))
            continue
        if target is None:
            known += 1
            if not private:
                click.echo(f"there already: {folder}")
            continue
        added += 1
        if private:
            continue
        click.echo(f"added {target}")
        if remark := code_remark(read_result(target).row):
            remarks.setdefault(remark, []).append(target)
    for remark, (target, *others) in remarks.items():
        click.echo(f"note: {target}{f' and {len(others)} more' if others else ''}: {remark}", err=True)
    for text in refused:
        click.echo(f"error: not added: {text}", err=True)
    if not private:
        click.echo(f"{added} added, {known} already there, {len(refused)} not added")
    return 2 if refused else 0


@leaderboard.command()
@_ROOT
@click.option(
    "--results",
    "runs",
    metavar="RUNS",
    type=click.Path(path_type=Path),
    help="Make a private board of a folder of runs, with its pages, in --out.",
)
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Where the board of --results goes.")
@click.option("--latex", is_flag=True, help="Also write LaTeX tables.")
@click.option("--site", metavar="DIR", type=click.Path(path_type=Path), help="Also build a static site in DIR.")
@click.option(
    "--link",
    "links",
    multiple=True,
    metavar="TITLE=ADDRESS",
    help="A link in the head of the site's pages, such as Docs=https://…; relative ones start at the first page.",
)
def build(root: Path, runs: Path | None, out: Path | None, latex: bool, site: Path | None, links: Sequence[str]) -> int:
    """Make boards of results/ below --root.

    Boards are written as Markdown, CSV and JSON, with an overview. Published numbers from reported/ go to published.md
    and to a page of the site, beside ours and never among them; shifts/report.html, made by lampbench analyze shifts,
    becomes a page of the site. The same results give the same bytes.

    With --results, the finished runs of a folder become a board of their own in --out, with pages for a browser; an
    earlier one there is replaced. If some runs cannot be added, the exit status is 2. Nothing is published: all files
    stay on this machine.

    \b
    lampbench leaderboard build --results runs --out board
    """
    if unfit := [link for link in links if "=" not in link]:
        raise InputError(f"--link: expected TITLE=ADDRESS, found {unfit[0]!r}")
    if (runs is None) != (out is None):
        raise InputError("--results and --out belong together: a folder of runs, and where its board goes")
    if runs is None or out is None:
        _build(root, latex, site, links)
        return 0
    runs_below(runs)  # before anything is taken away: raises InputError if there are none
    _empty(out)
    status = _add([runs], out, private=True)
    _build(out, latex, site or out / "site", links)
    click.echo(
        f"Text is in {out / 'results'}/*/*/*/*/ alone: predictions.jsonl.gz has answers, which may repeat your users' "
        "texts, and task.json the instruction; all other files have numbers, settings, and ids of users and queries"
    )
    return status


@leaderboard.command()
@_ROOT
@click.option(
    "--format", "form", required=True, type=click.Choice(["eee", "hf-eval", "latex"]),
    help="Every Eval Ever's records, evaluation results of the Hugging Face hub, or tables for a paper.",
)  # fmt: skip
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="A new folder.")
@click.option("--organization", metavar="NAME", help="For eee: who ran the methods.")
@click.option("--dataset", metavar="ORG/NAME", help="For hf-eval: the benchmark's dataset on the hub.")
@click.option("--source", metavar="ADDRESS", help="For hf-eval: where the results come from.")
def export(root: Path, form: str, out: Path, organization: str | None, dataset: str | None, source: str | None) -> None:
    """Write results in a form that other programs read.

    The results are those of results/ below --root. eee: a record per run. hf-eval: a file per task and method, for the
    repository of the model. latex: a table per board, with intervals, and in bold what cannot be told apart from the
    best. Nothing is sent anywhere, and no text of the data is in the files. Results of mini are called synthetic in
    all of them.

    \b
    lampbench leaderboard export --format latex --out tables
    lampbench leaderboard export --format eee --organization "My lab" --out records
    """
    from lampbench.core import new_folder
    from lampbench.leaderboard import boards, eee_records, hub_results, latex_tables, read_results

    if out.exists():
        raise InputError(f"--out {out}: exists already; name a new folder")
    results = list(read_results(root))
    if not results:
        raise InputError(f"{root / 'results'}: no results; add finished runs: lampbench leaderboard add RUN")
    if form == "eee":
        if not organization:
            raise InputError("--format eee needs --organization: who ran the methods")
        files = eee_records(results, organization)
    elif form == "hf-eval":
        if not dataset or dataset.count("/") != 1:
            raise InputError(f"--format hf-eval needs --dataset ORG/NAME, found {dataset!r}: the hub ranks by dataset")
        files = hub_results(boards(results), dataset, source)
    else:
        files = latex_tables(boards(results))
    with new_folder(out) as folder:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    click.echo(f"{len(files)} files in {out}")


def _empty(out: Path) -> None:
    """Take an earlier private board away, so that no run stays that was deleted or started over.

    Raises:
        InputError: The folder has something else in it.
    """
    mark = out / _PRIVATE
    if out.exists() and not mark.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: not an empty folder, nor a board that --results made; nothing was written")
    out.mkdir(parents=True, exist_ok=True)
    # The mark stays to the last: a board that is half gone can still be made again.
    for path in (path for path in out.iterdir() if path != mark):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    mark.write_text("lampbench leaderboard build --results made this folder, and makes it anew.\n", encoding="utf-8")


def _build(root: Path, latex: bool, site: Path | None, links: Sequence[str]) -> None:
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
        addresses = dict(link.split("=", 1) for link in links)
        pages = write_site(made, site, reported, shifts if shifts.is_file() else None, addresses)
        click.echo(f"{len(pages)} files in {site}, start at index.html")


@click.command()
@run_argument("runs", nargs=-1, required=True)
@_GOLDS
@out_option
def compare(runs: Sequence[str], golds: Sequence[Path], out: Path) -> None:
    """Compare RUNS with the first of them, query by query.

    A run is given as its folder (a result of a leaderboard has one, too), as the beginning of its id, or as
    TASK/METHOD.

    \b
    lampbench compare lamp5/zero-shot lamp5/rag lamp5/perfit
    lampbench compare runs/mini/lamp5/zero-shot/ID 7d3e90
    """
    from lampbench.leaderboard import KnownGolds, adjusted, read_result
    from lampbench.leaderboard import compare as compare_results
    from lampbench.rows import JOINT

    if len(runs) < 2:
        raise InputError("compare needs two runs or more")
    results = [read_result(find_run(own, out)) for own in runs]
    names = run_names([result.row for result in results])
    made = [
        compare_results([other], results[:1], (name, names[0]))
        for name, other in zip(names[1:], results[1:], strict=True)
    ]
    click.echo(_costs_text(names, results))
    for name, result in zip(names, results, strict=True):
        if result.identity.joint:
            click.echo(f"note: {name}: {JOINT}")
    find = KnownGolds(golds)
    for comparison, p, other in zip(made, adjusted(made), results[1:], strict=True):
        click.echo(f"\n{comparison}")
        if len(made) > 1:
            key = comparison.task.primary.key
            click.echo(f"  p of {key} by Holm over {len(made)} comparisons: {p:.4f}")
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
    click.echo(f"{rows} rows, {len(faults)} fault{'' if len(faults) == 1 else 's'}", err=bool(faults))
    return 1 if faults else 0


def _run_folders(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The run folders at or below the paths, and why a path gives none."""
    folders, refused = [], []
    for path in paths:
        try:
            folders += runs_below(path)
        except InputError as error:
            refused.append(str(error))
    return folders, refused


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


def _queries_text(comparison: Comparison, first: Result, second: Result, golds: Mapping[str, str] | None) -> str:
    if golds is None:
        return "  queries that moved most: give the golds (--golds FILE)"
    from lampbench.leaderboard import query_changes

    moved = query_changes(comparison.task, first, second, golds)[:_MOST]
    lines = [f"    {query}: {change:+.3f}" for query, change in moved if change]
    return "\n".join(["  queries that moved most (positive is better):", *(lines or ["    none"])])
