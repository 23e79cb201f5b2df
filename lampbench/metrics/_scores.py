"""Scores of a set of predictions, over queries and over users."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lampbench.core import InputError, Metric, Task

if TYPE_CHECKING:
    from lampbench.metrics._additive import Additive

# A difference is shown if its p-value, adjusted for all comparisons made together, is below.
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its uncertainty.

    Attributes:
        value: The number, or None if it is not finite.
        ci95: The 95% interval, or None if fewer than two users are behind the value.
        stderr: The standard error.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    stderr: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one set of predictions.

    Attributes:
        key: The official key.
        micro: Over all queries.
        macro: The mean over users of each user's own value; None if a user's own value is not meaningful
            (macro-F1 over labels that one user never meets) or users are unknown.
        n, n_users: Queries and users behind the value.
        official: Over all queries by the official evaluator, if that gives another value. NaN or infinite if it
            reads an answer as such a number.
    """

    key: str
    micro: Estimate
    macro: Estimate | None
    n: int
    n_users: int | None
    higher_is_better: bool
    primary: bool
    official: float | None = None

    @property
    def value(self) -> float | None:
        """Over all queries; None if it is not finite (no queries, or errors too large to add up)."""
        return self.micro.value


def finite(value: float) -> float | None:
    """The value, or None if it is not finite."""
    return value if math.isfinite(value) else None


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """The task's metrics, the primary one first; what a planner asks before it loads a model.

    Raises:
        InputError: The task names no metric, or one that is unknown, cannot score its answers, or needs something that
            is not installed.
    """
    for metric in task.metrics:
        if missing := metric.missing():
            raise InputError(f"the task {task.name!r}: its metric {metric.key!r} cannot be computed here: {missing}")
    return task.metrics


def score(
    task: Task, predictions: Sequence[str], golds: Sequence[str], users: Sequence[str] | None = None
) -> dict[str, Score]:
    """Every metric of ``task``, the primary one first.

    Args:
        task: The task whose metrics apply.
        predictions: One output per query.
        golds: The gold of each query, in the same order.
        users: The user of each query, for averages over users and for intervals.

    Raises:
        InputError: The task's file leaves the labels to the data, which golds alone do not tell.
    """
    from lampbench.metrics._additive import additive

    if task.definition is not None and task.definition.needs_labels:
        raise InputError(
            f"the labels of {task.name} are those of the data, and golds do not tell all of them; list them in the "
            "task's file, or give a run's task.json as the task"
        )
    sums, official = additive(task, predictions, golds, users), official_values(task, predictions, golds)
    return score_sums(task, sums, len(golds), by_user=users is not None, official=official)


def official_values(task: Task, predictions: Sequence[str], golds: Sequence[str]) -> dict[str, float]:
    """Metric -> its value by the official evaluator, of the metrics for which that is another value."""
    from lampbench.metrics._additive import Additive, terms_of

    values = {}
    for metric in task.metrics:
        if metric.official is not None and golds:
            own, theirs = (
                Additive.of(each, terms_of(each, predictions, golds, task.labels)).micro
                for each in (metric, metric.official)
            )
            if own != theirs:
                values[metric.key] = theirs
    return values


def score_sums(
    task: Task,
    sums: Mapping[str, Additive],
    queries: int,
    *,
    by_user: bool = True,
    official: Mapping[str, float] | None = None,
) -> dict[str, Score]:
    """As ``score``, from sums over each user's queries (``additive``) and ``official_values``."""
    from lampbench.metrics._statistics import estimate

    scores: dict[str, Score] = {}
    for metric in task.metrics:
        own = sums[metric.key]
        micro, macro = estimate(own) if by_user else (Estimate(finite(own.micro)), None)
        scores[metric.key] = Score(
            key=metric.key,
            micro=micro,
            macro=macro,
            n=queries,
            n_users=len(own.sums) if by_user else None,
            higher_is_better=metric.higher_is_better,
            primary=not scores,
            official=(official or {}).get(metric.key),
        )
    return scores


def invalid_outputs(task: Task, predictions: Sequence[str]) -> int:
    """How many outputs are not valid answers of the task."""
    return sum(not task.accepts(prediction.strip()) for prediction in predictions)
