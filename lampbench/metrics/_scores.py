"""Scores of a set of predictions: official keys, over queries and over users."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lampbench.core import Task
from lampbench.metrics._functions import accuracy, macro_f1, mean, rating_errors, rouge


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one set of predictions.

    Attributes:
        key: The official key.
        value: Over all queries; None where it is not finite (a rating "nan" or "inf").
        macro: The mean over users of each user's own value; None where a user's own value says
            nothing (macro-F1 over labels that one user never meets) or users are unknown.
        n, n_users: Queries and users behind the value.
    """

    key: str
    value: float | None
    macro: float | None
    n: int
    n_users: int | None
    higher_is_better: bool
    primary: bool


def score(
    task: Task, predictions: Sequence[str], golds: Sequence[str], users: Sequence[str] | None = None
) -> dict[str, Score]:
    """Every metric of ``task``, the primary one first.

    Args:
        task: The task whose metrics apply.
        predictions: One output a query.
        golds: The gold of each query, in the same order.
        users: The user of each query, for the average over users.
    """
    values = _value_functions(task, predictions, golds)
    groups = _groups(users)
    return {
        metric.key: Score(
            key=metric.key,
            value=_finite(values[metric.key](range(len(golds)))),
            macro=_macro(values[metric.key], groups) if groups and metric.key != "f1" else None,
            n=len(golds),
            n_users=len(groups) if groups else None,
            higher_is_better=metric.higher_is_better,
            primary=metric == task.primary,
        )
        for metric in task.metrics
    }


def invalid_outputs(task: Task, predictions: Sequence[str]) -> int:
    """How many outputs are no valid answer: no label, no number from 1 to 5, or empty."""
    return sum(not task.accepts(prediction.strip()) for prediction in predictions)


_Rows = Sequence[int]
_Value = Callable[[_Rows], float]


def _value_functions(task: Task, predictions: Sequence[str], golds: Sequence[str]) -> dict[str, _Value]:
    """Each metric as a function of the rows it is taken over; per-query work is done once."""
    if task.kind == "labels":
        return {
            "accuracy": _mean_of(accuracy(predictions, golds)),
            "f1": lambda rows: macro_f1([predictions[i] for i in rows], [golds[i] for i in rows], task.labels),
        }
    if task.kind == "rating":
        errors = rating_errors(predictions, golds)
        mean_square = _mean_of([error * error for error in errors])
        return {"MAE": _mean_of([abs(error) for error in errors]), "RMSE": lambda rows: math.sqrt(mean_square(rows))}
    return {key: _mean_of(values) for key, values in rouge(predictions, golds).items()}


def _mean_of(per_query: Sequence[float]) -> _Value:
    return lambda rows: mean([per_query[i] for i in rows])


def _groups(users: Sequence[str] | None) -> list[list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, user in enumerate(users or ()):
        rows[user].append(row)
    return list(rows.values())


def _macro(value: _Value, groups: list[list[int]]) -> float | None:
    return _finite(mean([value(rows) for rows in groups]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
