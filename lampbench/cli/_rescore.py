"""``lampbench rescore``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lampbench.cli._flags import completes
from lampbench.cli._options import cache_option, out_option, run_argument, use_cache
from lampbench.core import InputError, Plugin, metrics

if TYPE_CHECKING:
    from lampbench.api import Look
    from lampbench.leaderboard import AddedScore


@click.command()
@run_argument("runs", nargs=-1, required=True)
@click.option("--metric", multiple=True, shell_complete=completes(metrics), help="A metric's name.")
@click.option(
    "--encoder", metavar="MODEL", help="Also score by the cosine of this encoder's vectors: folder or hub id."
)
@click.option("--data", type=click.Path(path_type=Path), help="The data folder of the runs' protocol, if it needs one.")
@out_option
@cache_option
def rescore(
    runs: Sequence[str], metric: Sequence[str], encoder: str | None, data: Path | None, out: Path, cache: Path | None
) -> None:
    """Score finished RUNS by other metrics than their task's, from the answers on disk.

    No language model is loaded. Scores are printed, and added to rescored.json in the run's folder: the row says what
    the run was judged by when it ran, so it stays as it is. Private boards show added metrics, and none ranks by them.
    A metric that needs what is not installed is skipped, and the reason recorded.

    \b
    lampbench rescore lamp5/rag lamp5/perfit --metric chrF --metric style
    lampbench rescore mails/rag --metric letters --plugin metrics.py --data DATA
    lampbench rescore mails/rag --encoder ENCODER --data DATA
    """
    from tabulate import tabulate

    from lampbench.api import Look, data_at, finished_run
    from lampbench.leaderboard import read_added, write_added

    use_cache(cache)
    names = [metrics().canonical(name) or name for name in metric]
    if encoder is not None:
        names.append(_of_encoder(encoder))
    if not names:
        raise InputError("nothing to score by; expected --metric NAME, or --encoder MODEL")
    data_of, lines = data_at(data), []
    for own in runs:
        look = Look(*finished_run(own, out), data_of)
        added = _scores(look, list(dict.fromkeys(names)))
        write_added(look.folder, look.row.run_id, read_added(look.folder, look.row.run_id) | added)
        lines += [(f"{look.task.name}/{look.row.identity.method}", key, *_cells(score)) for key, score in added.items()]
    headers = ("run", "metric", "score", "mean over users", "better")
    click.echo(tabulate(lines, headers=headers, disable_numparse=True))


def _scores(look: Look, names: Sequence[str]) -> dict[str, AddedScore]:
    """A run's answers scored by these metrics, those that cannot be computed here with the reason."""
    from lampbench.leaderboard import AddedScore
    from lampbench.metrics import score

    found: dict[str, AddedScore] = {}
    scored = []
    for metric in replace(look.task, scored_by=tuple(names)).metrics:
        source = metrics().plugin(metric.key).distribution
        if missing := metric.missing():
            found[metric.key] = AddedScore(
                value=None, higher_is_better=metric.higher_is_better, skipped=missing, source=source
            )
        else:
            scored.append(metric.key)
    if scored:
        asked = look.asked
        answers, golds = [each.answer for each in asked], [each.gold for each in asked]
        judged = replace(look.task, scored_by=tuple(scored))
        for key, own in score(judged, answers, golds, [each.user.id for each in asked]).items():
            found[key] = AddedScore(
                value=own.value,
                ci95=own.micro.ci95,
                macro=own.macro.value if own.macro else None,
                higher_is_better=own.higher_is_better,
                source=metrics().plugin(key).distribution,
            )
    return {name: found[name] for name in names}


def _of_encoder(name: str) -> str:
    """Register the similarity to an encoder as a metric; gives its name."""
    from lampbench.hub import find_model
    from lampbench.retrieval import DenseEncoder, similarity

    source = find_model(name)
    key = f"similarity {source.id}"
    owner = f"the encoder {source.id} ({source.revision})"
    target = similarity(DenseEncoder(source), key)
    return metrics().add(Plugin(key, owner, name, EntryPoint(key, name, ""), target)).name


def _cells(score: AddedScore) -> tuple[str, str, str]:
    """Value with interval, mean over users, direction."""
    if score.skipped:
        return f"skipped: {score.skipped}", "", ""
    interval = "" if score.ci95 is None else " [{:.3f}, {:.3f}]".format(*score.ci95)
    value = "not finite" if score.value is None else f"{score.value:.3f}"
    macro = "" if score.macro is None else f"{score.macro:.3f}"
    return f"{value}{interval}", macro, "higher" if score.higher_is_better else "lower"
