"""``lampbench rescore``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lampbench.cli._flags import completes
from lampbench.cli._options import cache_option, out_option, run_argument, use_cache
from lampbench.core import metrics, write_json

RESCORED = "rescored.json"


@click.command()
@run_argument("runs", nargs=-1, required=True)
@click.option("--metric", required=True, multiple=True, shell_complete=completes(metrics), help="A metric's name.")
@click.option("--data", type=click.Path(path_type=Path), help="The data folder of the runs' protocol, if it needs one.")
@out_option
@cache_option
def rescore(runs: Sequence[str], metric: Sequence[str], data: Path | None, out: Path, cache: Path | None) -> None:
    """Score finished RUNS by other metrics than their task's, from the answers on disk.

    No model is loaded. Scores are printed, and added to rescored.json in the run's folder: the row says what the run
    was judged by when it ran, so it stays as it is, and no board ranks by an added metric.

    \b
    lampbench rescore lamp5/rag lamp5/perfit --metric rouge-1
    lampbench rescore mails/rag --metric letters --plugin metrics.py --data DATA
    """
    from tabulate import tabulate

    from lampbench.api import Look, data_at, finished_run
    from lampbench.metrics import score

    use_cache(cache)
    data_of, lines = data_at(data), []
    for own in runs:
        look = Look(*finished_run(own, out), data_of)
        names = dict.fromkeys(metrics().canonical(name) or name for name in metric)
        judged = replace(look.task, scored_by=tuple(names))
        asked = look.asked
        answers, golds = [each.answer for each in asked], [each.gold for each in asked]
        found = score(judged, answers, golds, [each.user.id for each in asked])
        kept = _scored_before(look.folder / RESCORED, look.row.run_id)
        for key, result in found.items():
            plugin = metrics().plugin(key)
            kept[key] = {
                "value": result.value,
                "ci95": result.micro.ci95,
                "macro": result.macro.value if result.macro else None,
                "added": True,
                "from": plugin.distribution,
            }
            interval = "" if result.micro.ci95 is None else "[{:.3f}, {:.3f}]".format(*result.micro.ci95)
            value = "not finite" if result.value is None else f"{result.value:.3f}"
            direction = "higher" if result.higher_is_better else "lower"
            lines.append((f"{look.task.name}/{look.row.identity.method}", key, f"{value} {interval}", direction))
        write_json(look.folder / RESCORED, {"run_id": look.row.run_id, "metrics": kept})
    click.echo(tabulate(lines, headers=("run", "metric", "score", "better"), disable_numparse=True))


def _scored_before(path: Path, run_id: str) -> dict[str, Any]:
    """What the file has of other metrics of the same run; nothing if there is none, or it cannot be read."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        return dict(before["metrics"]) if before["run_id"] == run_id else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
