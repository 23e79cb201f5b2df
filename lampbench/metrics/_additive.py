"""Metrics as functions of sums over queries: what every resampling of users needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from lampbench.core import Task
from lampbench.metrics._estimate import finite
from lampbench.metrics._functions import accuracy, rating_errors, rouge

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Additive:
    """One metric of one set of predictions, user by user.

    Attributes:
        sums: Shape (users, terms): what each user's queries add.
        value: Maps summed terms, shape (..., terms), to the metric, shape (...).
        per_user: Whether one user's own value says something; macro-F1's does not, since one user
            meets few labels.
        linear: Whether the mean of several sets' values is the value of their mean sums (of answers to
            the same queries).
    """

    sums: Array
    value: Callable[[Array], Array]
    per_user: bool = True
    linear: bool = False

    @property
    def micro(self) -> float:
        """The metric over all queries."""
        with np.errstate(all="ignore"):
            return float(self.value(self.sums.sum(axis=0)))

    @property
    def own(self) -> Array:
        """Each user's own value, shape (users,)."""
        return self.value(self.sums)


def additive(
    task: Task, predictions: Sequence[str], golds: Sequence[str], users: Sequence[str] | None = None
) -> dict[str, Additive]:
    """Every metric of ``task``; users in order of first appearance, or each query apart where they are unknown."""
    terms = terms_of(task.kind, task.labels, predictions, golds)
    if users is None:
        return terms
    places = {user: place for place, user in enumerate(dict.fromkeys(users))}
    owner = np.array([places[user] for user in users], dtype=np.intp)
    summed = {}
    for key, metric in terms.items():
        sums = np.zeros((len(places), metric.sums.shape[1]))
        with np.errstate(all="ignore"):
            np.add.at(sums, owner, metric.sums)
        summed[key] = replace(metric, sums=sums)
    return summed


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
        ValueError: The sums do not have a row a user, or not the metric's terms.
    """
    users = [str(user) for user in value["users"]]
    metrics = {}
    for key, template in _templates(task.kind, task.labels).items():
        sums = np.array(value["sums"][key], dtype=float)
        if sums.shape != (len(users), template.sums.shape[1]):
            raise ValueError(f"{key}: sums of shape {sums.shape} for {len(users)} users")
        metrics[key] = replace(template, sums=sums)
    return users, metrics


@cache
def _templates(kind: Literal["labels", "rating", "text"], labels: tuple[str, ...]) -> Mapping[str, Additive]:
    """Every metric of a kind of task, of no answers: the functions of the sums."""
    mean = Additive(np.empty((0, 2)), _mean, linear=True)
    if kind == "labels":
        return {"accuracy": mean, "f1": Additive(np.empty((0, 2 * len(labels))), _f1, per_user=False)}
    if kind == "rating":
        return {"MAE": mean, "RMSE": replace(mean, value=_root_mean, linear=False)}
    return {"rouge-1": mean, "rouge-L": mean}


def terms_of(
    kind: Literal["labels", "rating", "text"], labels: Sequence[str], predictions: Sequence[str], golds: Sequence[str]
) -> dict[str, Additive]:
    """Every metric of a kind of task, query by query."""
    if kind == "labels":
        right = _counted(accuracy(predictions, golds))
        sums = {"accuracy": right, "f1": _mentions(labels, predictions, golds)}
    elif kind == "rating":
        errors = np.array(rating_errors(predictions, golds))
        with np.errstate(all="ignore"):
            sums = {"MAE": _counted(np.abs(errors)), "RMSE": _counted(errors * errors)}
    else:
        sums = {key: _counted(values) for key, values in rouge(predictions, golds).items()}
    templates = _templates(kind, tuple(labels))
    return {key: replace(templates[key], sums=own) for key, own in sums.items()}


def _counted(values: Sequence[float] | Array) -> Array:
    """A value and a one a query."""
    return np.stack([np.asarray(values, dtype=float), np.ones(len(values))], axis=1)


def _mentions(labels: Sequence[str], predictions: Sequence[str], golds: Sequence[str]) -> Array:
    """Hits, then mentions (predicted or gold), of every label, a query."""
    predicted, gold = (
        np.array([[text.strip() == label for label in labels] for text in texts], dtype=float).reshape(-1, len(labels))
        for texts in (predictions, golds)
    )
    return np.concatenate([predicted * gold, predicted + gold], axis=1)


def _mean(sums: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def _root_mean(sums: Array) -> Array:
    return np.sqrt(_mean(sums))


def _f1(sums: Array) -> Array:
    """F1 averaged over all labels; a label that occurs nowhere contributes 0."""
    labels = sums.shape[-1] // 2
    hits, mentions = sums[..., :labels], sums[..., labels:]
    scores = 2 * hits
    # Where there is no mention there is no hit.
    np.divide(scores, mentions, out=scores, where=mentions > 0)
    return np.asarray(scores.mean(axis=-1))
