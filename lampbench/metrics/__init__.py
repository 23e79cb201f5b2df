"""Metrics and statistics: scores for the runner and the boards, ``evaluate.Metric`` classes for use elsewhere.

LaMP's own metrics are in ``labels``, ``ratings`` and ``rouge``, registered as entry points, as a third party's are.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lampbench.metrics._scores import (
    LEVEL,
    Estimate,
    Score,
    invalid_outputs,
    metrics_of,
    official_values,
    score,
    score_sums,
)

if TYPE_CHECKING:
    from lampbench.metrics._additive import Additive, additive, per_query, sums_from_json, sums_to_json, terms_of
    from lampbench.metrics._evaluate import LabelMetric, RatingMetric, RougeMetric
    from lampbench.metrics._power import smallest_difference
    from lampbench.metrics._ranks import rank_groups, told_apart
    from lampbench.metrics._statistics import RESAMPLES, Difference, Means, difference, holm

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "Additive",
    "Difference",
    "Estimate",
    "LabelMetric",
    "Means",
    "RatingMetric",
    "RougeMetric",
    "Score",
    "additive",
    "difference",
    "holm",
    "invalid_outputs",
    "metrics_of",
    "official_values",
    "per_query",
    "rank_groups",
    "score",
    "score_sums",
    "smallest_difference",
    "sums_from_json",
    "sums_to_json",
    "terms_of",
    "told_apart",
]

# evaluate and datasets take seconds to import, and numpy is not for --help; only code that uses these waits.
_LATER = {
    "_additive": ("Additive", "additive", "per_query", "sums_from_json", "sums_to_json", "terms_of"),
    "_evaluate": ("LabelMetric", "RatingMetric", "RougeMetric"),
    "_power": ("smallest_difference",),
    "_ranks": ("rank_groups", "told_apart"),
    "_statistics": ("RESAMPLES", "Difference", "Means", "difference", "holm"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"lampbench.metrics.{module}"), name)
    raise AttributeError(f"module 'lampbench.metrics' has no attribute {name!r}")
