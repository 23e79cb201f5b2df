"""``lampbench score``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lampbench.cli._flags import completes
from lampbench.core import InputError, tasks


@click.command()
@click.option("--task", required=True, shell_complete=completes(tasks), help="The task, such as lamp3.")
@click.option("--predictions", required=True, type=click.Path(path_type=Path), help="File in LaMP's output format.")
@click.option("--golds", required=True, type=click.Path(path_type=Path), help="LaMP's outputs file.")
@click.option("--partial", is_flag=True, help="Score the queries that have a prediction, and leave the others out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with the official keys.")
def score(task: str, predictions: Path, golds: Path, partial: bool, as_json: bool) -> None:
    """Score a predictions file by the official metrics.

    Both files are {"task": …, "golds": [{"id", "output"}]} and must have the same ids. With --partial, predictions may
    be missing; the score is then of other queries than a board's, and cannot be compared with it.
    """
    from lampbench.data import check_same_ids, read_golds, read_outputs
    from lampbench.metrics import invalid_outputs
    from lampbench.metrics import score as score_outputs
    from lampbench.runner import load_task

    the_task = load_task(task)
    outputs = read_outputs(predictions, the_task).by_id
    answers = read_golds(golds, the_task).by_id
    of = len(answers)
    if partial:
        answers = {query: gold for query, gold in answers.items() if query in outputs}
        if not answers:
            raise InputError(f"{predictions}: no prediction of a query of {golds}")
        click.echo(f"partial: scores of {len(answers)} of {of} queries; the others have no prediction", err=True)
    check_same_ids(set(answers), set(outputs), golds, predictions)
    in_order = [outputs[query_id] for query_id in answers]
    scores = score_outputs(the_task, in_order, list(answers.values()))
    invalid = invalid_outputs(the_task, in_order)
    if invalid:
        click.echo(f"note: {invalid} of {len(in_order)} predictions are not valid answers of {the_task.name}", err=True)
    if as_json:
        official = {f"{key}-official": str(own.official) for key, own in scores.items() if own.official is not None}
        extent = {"scored": len(answers), "queries": of} if partial else {}
        click.echo(json.dumps({key: result.value for key, result in scores.items()} | official | extent))
        return
    queries = f"{len(in_order)} of {of} queries" if partial else f"{of} queries"
    for key, result in scores.items():
        value = "not finite" if result.value is None else f"{result.value:.4f}"
        beside = "" if result.official is None else f"; the official evaluator gives {result.official}"
        click.echo(f"{key}: {value}  ({queries}{beside})")
