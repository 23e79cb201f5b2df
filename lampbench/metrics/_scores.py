"""Scores of a set of predictions: official keys, over queries and over users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lampbench.core import Task
from lampbench.metrics._estimate import Estimate, finite

if TYPE_CHECKING:
    from lampbench.metrics._additive import Additive


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one set of predictions.

    Attributes:
        key: The official key.
        micro: Over all queries.
        macro: The mean over users of each user's own value; None where a user's own value says
            nothing (macro-F1 over labels that one user never meets) or users are unknown.
        n, n_users: Queries and users behind the value.
    """

    key: str
    micro: Estimate
    macro: Estimate | None
    n: int
    n_users: int | None
    higher_is_better: bool
    primary: bool

    @property
    def value(self) -> float | None:
        """Over all queries; None where it is not finite (a rating "nan" or "inf")."""
        return self.micro.value


def score(
    task: Task, predictions: Sequence[str], golds: Sequence[str], users: Sequence[str] | None = None
) -> dict[str, Score]:
    """Every metric of ``task``, the primary one first.

    Args:
        task: The task whose metrics apply.
        predictions: One output a query.
        golds: The gold of each query, in the same order.
        users: The user of each query, for averages over users and for intervals.
    """
    from lampbench.metrics._additive import additive

    return score_sums(task, additive(task, predictions, golds, users), len(golds), by_user=users is not None)


def score_sums(task: Task, sums: Mapping[str, Additive], queries: int, *, by_user: bool = True) -> dict[str, Score]:
    """As ``score``, from sums over each user's queries (``additive``)."""
    from lampbench.metrics._statistics import estimate

    scores = {}
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
            primary=metric == task.primary,
        )
    return scores


def invalid_outputs(task: Task, predictions: Sequence[str]) -> int:
    """How many outputs are no valid answer: no label, no number from 1 to 5, or empty."""
    return sum(not task.accepts(prediction.strip()) for prediction in predictions)
