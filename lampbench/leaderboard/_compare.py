"""Runs side by side: the same queries, the difference and how sure it is, users and queries that moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampbench.core import InputError, Metric, Task, tasks
from lampbench.leaderboard._results import Result, read_predictions
from lampbench.metrics import Additive, Difference, additive, difference, holm

# A user's own value must move by more than rounding to count.
_TOLERANCE = 1e-9
RESAMPLES = 10_000
# Users that a text names.
_NAMED = 10


@dataclass(frozen=True)
class Moved:
    """How many users one result serves better or worse than another, by the primary metric.

    Attributes:
        worst_tenth: The mean change of the tenth of users who lose most; positive is better.
    """

    helped: int
    unchanged: int
    hurt: int
    worst_tenth: float


@dataclass(frozen=True)
class Comparison:
    """One method against another on one task.

    Attributes:
        first, second: Names.
        differences: Metric -> first minus second.
        moved: Users, from second to first.
        changed: The share of answers that are not the same.
        users: Users with the largest change first: id, change (positive is better).
    """

    task: Task
    first: str
    second: str
    differences: Mapping[str, Difference]
    moved: Moved
    changed: float
    users: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        lines = [f"{self.first} against {self.second}"]
        for key, own in self.differences.items():
            micro = own.micro
            if micro.value is None:
                lines.append(f"  {key}: not finite")
                continue
            interval = f" [{micro.ci95[0]:+.4f}, {micro.ci95[1]:+.4f}]" if micro.ci95 else ""
            macro = f"; over users {own.macro.value:+.4f}" if own.macro and own.macro.value is not None else ""
            lines.append(f"  {key}: {micro.value:+.4f}{interval}, p={own.p:.4f}{macro}")
        m = self.moved
        lines.append(
            f"  users helped {m.helped}, unchanged {m.unchanged}, hurt {m.hurt}; worst tenth {m.worst_tenth:+.4f}"
        )
        lines.append(f"  answers that differ: {self.changed:.1%}")
        moved = [f"    {user}: {change:+.3f}" for user, change in self.users[:_NAMED] if change]
        return "\n".join([*lines, "  users that moved most (positive is better):", *(moved or ["    none"])])


def compare(
    first: Sequence[Result], second: Sequence[Result], names: tuple[str, str], *, resamples: int = RESAMPLES
) -> Comparison:
    """Compare two methods' runs, each perhaps over several seeds, on the same users and queries.

    Raises:
        InputError: They are of different tasks, users or queries.
    """
    results = [*first, *second]
    task: Task = tasks().load(results[0].identity.task)
    check_comparable(results)
    differences = {
        metric.key: difference(_sums(first, metric.key), _sums(second, metric.key), resamples=resamples)
        for metric in task.metrics
    }
    changes = user_changes(first, second, task.primary)
    order = np.argsort(-np.abs(changes), kind="stable")
    users = tuple((results[0].users[i], float(changes[i])) for i in order)
    return Comparison(task, *names, differences, moved(changes), _changed(first[0], second[0]), users)


def check_comparable(results: Sequence[Result]) -> None:
    """Raise InputError unless all are of one task version, protocol hash and users."""
    base = results[0]
    for other in results[1:]:
        for key in ("task", "task_version", "protocol_hash", "limit"):
            ours, theirs = getattr(base.identity, key), getattr(other.identity, key)
            if ours != theirs:
                raise InputError(
                    f"{other.folder}: its {key} is {theirs!r}, that of {base.folder} is {ours!r}; "
                    "only answers to the same queries can be compared"
                )
        if other.users != base.users:
            raise InputError(f"{other.folder}: its users are not those of {base.folder}")


def user_changes(first: Sequence[Result], second: Sequence[Result], metric: Metric) -> Any:
    """Each user's change of a metric from ``second`` to ``first``, shape (users,); positive is better."""
    ours, theirs = (np.mean([m.own for m in _sums(part, metric.key)], axis=0) for part in (first, second))
    return (ours - theirs) * (1 if metric.higher_is_better else -1)


def moved(changes: Any) -> Moved:
    """Count users by the direction of their change; users without a score on either side are not counted."""
    changes = changes[np.isfinite(changes)]
    helped, hurt = int((changes > _TOLERANCE).sum()), int((changes < -_TOLERANCE).sum())
    tenth = np.sort(changes)[: max(1, len(changes) // 10)]
    return Moved(helped, len(changes) - helped - hurt, hurt, float(tenth.mean()) if len(tenth) else math.nan)


def _changed(first: Result, second: Result) -> float:
    ours, theirs = (
        {answer.id: answer.output for answer in read_predictions(result.folder)} for result in (first, second)
    )
    return sum(output != theirs.get(query) for query, output in ours.items()) / len(ours)


def query_changes(task: Task, first: Result, second: Result, golds: Mapping[str, str]) -> list[tuple[str, float]]:
    """Queries by their change of the primary metric from ``second`` to ``first``, largest first; positive is better.

    Raises:
        InputError: Answers are missing, or golds of them.
    """
    ours, theirs = ({own.id: own.output for own in read_predictions(result.folder)} for result in (first, second))
    ids = list(ours)
    missing = [query for query in ids if query not in theirs or query not in golds]
    if missing:
        raise InputError(f"{second.folder}: no answer or no gold of query {missing[0]!r}")
    key, sign = task.primary.key, 1 if task.primary.higher_is_better else -1
    own = [
        additive(task, [answers[query] for query in ids], [golds[query] for query in ids])[key].own
        for answers in (ours, theirs)
    ]
    changes = (own[0] - own[1]) * sign
    return [(ids[i], float(changes[i])) for i in np.argsort(-np.abs(changes), kind="stable")]


def adjusted(comparisons: Sequence[Comparison]) -> list[float]:
    """Holm's adjustment of the primary metric's p over several comparisons, in their order."""
    return holm([own.differences[own.task.primary.key].p for own in comparisons])


def _sums(results: Sequence[Result], key: str) -> list[Additive]:
    return [result.sums[key] for result in results]
