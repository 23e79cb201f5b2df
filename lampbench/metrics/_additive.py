"""Metrics as functions of sums over queries, which resampling of users needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lampbench.core import AnswerKind, Metric, Task
from lampbench.metrics._scores import finite

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Additive:
    """One metric of one set of predictions, user by user.

    Attributes:
        sums: Shape (users, terms): what each user's queries add.
        value, per_user, linear: As in ``lampbench.core.Metric``.
    """

    sums: Array
    value: Callable[[Array], Array]
    per_user: bool = True
    linear: bool = False

    @classmethod
    def of(cls, metric: Metric, sums: Array) -> Additive:
        """``metric`` with these sums."""
        return cls(sums, metric.value, metric.per_user, metric.linear)

    @property
    def micro(self) -> float:
        """The metric over all queries."""
        with np.errstate(all="ignore"):
            return float(self.value(self.sums.sum(axis=0)))

    @property
    def own(self) -> Array:
        """Each user's own value, shape (users,)."""
        with np.errstate(all="ignore"):
            return self.value(self.sums)


def additive(
    task: Task, predictions: Sequence[str], golds: Sequence[str], users: Sequence[str] | None = None
) -> dict[str, Additive]:
    """Every metric of ``task``, the primary one first.

    Users come in order of first appearance; without ``users``, each query is a user of its own.
    """
    return {
        metric.key: Additive.of(metric, user_sums(terms_of(metric, predictions, golds, task.labels), users))
        for metric in task.metrics
    }


def terms_of(metric: Metric, predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str] = ()) -> Array:
    """What each query adds to a metric, shape (queries, width).

    Raises:
        ValueError: The metric gives another shape.
    """
    with np.errstate(all="ignore"):
        terms = np.asarray(metric.terms(predictions, golds, labels), dtype=float)
    expected = (len(golds), metric.width(labels))
    if terms.size == 0 and not golds:
        return np.zeros(expected)
    if terms.shape != expected:
        raise ValueError(f"the metric {metric.key!r} gives terms of shape {terms.shape}; expected {expected}")
    return terms


def user_sums(terms: Array, users: Sequence[str] | None) -> Array:
    """The terms of queries summed over each user, shape (users, width), in order of first appearance."""
    if users is None:
        return terms
    places = {user: place for place, user in enumerate(dict.fromkeys(users))}
    sums = np.zeros((len(places), terms.shape[1]))
    with np.errstate(all="ignore"):
        np.add.at(sums, np.array([places[user] for user in users], dtype=np.intp), terms)
    return sums


def sums_to_json(users: Sequence[str], metrics: Mapping[str, Additive]) -> dict[str, Any]:
    """Each user's sums as JSON values; null is a number that is not finite."""
    return {
        "users": list(dict.fromkeys(users)),
        "sums": {key: [list(map(finite, row)) for row in metric.sums.tolist()] for key, metric in metrics.items()},
    }


def sums_from_json(task: Task, value: Mapping[str, Any]) -> tuple[list[str], dict[str, Additive]]:
    """The users and what ``sums_to_json`` wrote of them.

    Raises:
        KeyError: A metric of the task is missing.
        ValueError: The sums do not have a row per user, or not the metric's terms.
    """
    users = [str(user) for user in value["users"]]
    metrics = {}
    for metric in task.metrics:
        sums = np.array(value["sums"][metric.key], dtype=float)
        if sums.shape != (len(users), metric.width(task.labels)):
            raise ValueError(f"{metric.key}: sums of shape {sums.shape} for {len(users)} users")
        metrics[metric.key] = Additive.of(metric, sums)
    return users, metrics


def per_query(
    key: str,
    values: Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[float] | Array],
    *,
    about: str,
    higher_is_better: bool,
    kinds: Iterable[AnswerKind],
    bounds: tuple[float, float],
    root: bool = False,
    official: Metric | None = None,
    missing: Callable[[], str] | None = None,
) -> Metric:
    """A metric that is the mean of a value per query.

    Args:
        key: The metric's name.
        values: Called with predictions, golds and the task's labels; gives one value per query.
        about: One line on what it is.
        higher_is_better: The direction.
        kinds: The kinds of answer that it can score.
        bounds: The lowest and the highest possible value.
        root: Take the square root of the mean.
        official: As in ``lampbench.core.Metric``.
        missing: As in ``lampbench.core.Metric``; None if nothing can be missing.
    """

    def terms(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> Array:
        own = np.asarray(values(predictions, golds, labels), dtype=float)
        return np.stack([own, np.ones(len(own))], axis=1)

    made = Metric(
        key, about, higher_is_better, frozenset(kinds), terms, _root_mean if root else mean, lambda labels: 2,
        bounds=bounds, linear=not root, official=official,
    )  # fmt: skip
    return made if missing is None else replace(made, missing=missing)


def mean(sums: Array) -> Array:
    """The mean of a value per query, from the sums of values and queries."""
    with np.errstate(all="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def _root_mean(sums: Array) -> Array:
    return np.sqrt(mean(sums))
