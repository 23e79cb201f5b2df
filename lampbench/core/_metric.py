"""A metric is a function of sums over queries, so that users can be resampled without scoring again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

AnswerKind: TypeAlias = Literal["labels", "rating", "text"]


def _nothing() -> str:
    return ""


@dataclass(frozen=True)
class Metric:
    """How the answers to a task's queries are scored.

    A metric is a plug-in, an instance named by an entry point of its distribution:

        [project.entry-points."lampbench.metrics"]
        length-error = "my_package:LENGTH_ERROR"

    For means over queries, ``lampbench.metrics.per_query`` makes one from a function. In general each query adds
    ``width`` numbers, and ``value`` is a function of their sums over queries.

    Attributes:
        key: The name in rows and boards, and the name of the entry point; for LaMP's metrics, the official key.
        about: One line for ``lampbench list metrics``.
        higher_is_better: The direction.
        kinds: The kinds of answer that it can score: ``labels``, ``rating``, ``text``.
        terms: Called with predictions, golds and the task's labels; gives shape (queries, width), a row per query,
            which depends on that query alone.
        value: Maps summed terms, a numpy array of shape (..., width), to the metric, shape (...).
        width: Terms per query, given the task's labels.
        bounds: The lowest and the highest possible value.
        per_user: Whether the value over one user's queries is meaningful; macro-F1's is not, because one user
            meets few labels. If False, there is no average over users.
        linear: Whether the mean of several values is the value of the mean sums, for answers to the same queries.
        official: The metric as the official evaluator computes it, if its value may differ; a different value
            is reported beside this one, and never used for ranks.
        missing: Says what the metric needs and does not find on this machine, and how to install it; empty if nothing
            is missing. It is asked before anything is scored, and downloads nothing.
    """

    key: str
    about: str
    higher_is_better: bool
    kinds: frozenset[AnswerKind]
    terms: Callable[[Sequence[str], Sequence[str], Sequence[str]], Any]
    value: Callable[[Any], Any]
    width: Callable[[Sequence[str]], int]
    bounds: tuple[float, float] = (0.0, math.inf)
    per_user: bool = True
    linear: bool = False
    official: Metric | None = None
    missing: Callable[[], str] = _nothing
