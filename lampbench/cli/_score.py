"""``lampbench score``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.option("--task", required=True, help="The task, such as lamp3.")
@click.option("--predictions", required=True, type=click.Path(path_type=Path), help="File in LaMP's output format.")
@click.option("--golds", required=True, type=click.Path(path_type=Path), help="LaMP's outputs file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with the official keys.")
def score(task: str, predictions: Path, golds: Path, as_json: bool) -> None:
    """Score a predictions file by the official metrics.

    Both files are {"task": …, "golds": [{"id", "output"}]} and must hold the same ids.
    """
    from lampbench.data import check_same_ids, read_golds, read_outputs
    from lampbench.metrics import invalid_outputs
    from lampbench.metrics import score as score_outputs
    from lampbench.runner import load_task

    the_task = load_task(task)
    outputs = read_outputs(predictions, the_task).by_id
    answers = read_golds(golds, the_task).by_id
    check_same_ids(set(answers), set(outputs), golds, predictions)
    in_order = [outputs[query_id] for query_id in answers]
    scores = score_outputs(the_task, in_order, list(answers.values()))
    invalid = invalid_outputs(the_task, in_order)
    if invalid:
        click.echo(f"note: {invalid} of {len(in_order)} predictions are no valid answer of {task}", err=True)
    if as_json:
        official = {f"{key}-official": str(own.official) for key, own in scores.items() if own.official is not None}
        click.echo(json.dumps({key: result.value for key, result in scores.items()} | official))
        return
    for key, result in scores.items():
        value = "not finite" if result.value is None else f"{result.value:.4f}"
        beside = "" if result.official is None else f"; the official evaluator gives {result.official}"
        click.echo(f"{key}: {value}  ({len(in_order)} queries{beside})")
