"""LaMP's metrics of labels. Both sides are only stripped, as in the official evaluator (``metrics/``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampbench.core import Metric
from lampbench.metrics import per_query
from lampbench.metrics._additive import Array


def _right(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> list[float]:
    return [float(p.strip() == g.strip()) for p, g in zip(predictions, golds, strict=True)]


def _mentions(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> Array:
    """Hits, then mentions (predicted or gold), of every label: shape (queries, 2 * labels)."""
    predicted, gold = (
        np.array([[text.strip() == label for label in labels] for text in texts], dtype=float).reshape(-1, len(labels))
        for texts in (predictions, golds)
    )
    return np.concatenate([predicted * gold, predicted + gold], axis=1)


def _f1(sums: Array) -> Array:
    """F1 averaged over all labels; a label that occurs nowhere contributes 0."""
    labels = sums.shape[-1] // 2
    hits, mentions = sums[..., :labels], sums[..., labels:]
    scores = 2 * hits
    # Without a mention there is no hit.
    np.divide(scores, mentions, out=scores, where=mentions > 0)
    return np.asarray(scores.mean(axis=-1))


ACCURACY = per_query(
    "accuracy",
    _right,
    about="share of exact, case-sensitive matches",
    higher_is_better=True,
    kinds=("labels", "rating"),
    bounds=(0.0, 1.0),
)
F1 = Metric(
    "f1",
    "F1 averaged over the full label list",
    higher_is_better=True,
    kinds=frozenset({"labels"}),
    terms=_mentions,
    value=_f1,
    width=lambda labels: 2 * len(labels),
    bounds=(0.0, 1.0),
    per_user=False,
)
