"""LaMP's metrics: scores and statistics for the runner and the boards, ``evaluate.Metric`` classes for everyone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lampbench.metrics._estimate import Estimate
from lampbench.metrics._scores import Score, invalid_outputs, score, score_sums

if TYPE_CHECKING:
    from lampbench.metrics._additive import Additive, additive, sums_from_json, sums_to_json
    from lampbench.metrics._evaluate import LabelMetric, RatingMetric, RougeMetric
    from lampbench.metrics._statistics import Difference, Means, difference, holm

__all__ = [
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
    "score",
    "score_sums",
    "sums_from_json",
    "sums_to_json",
]

# evaluate and datasets take seconds to import, and numpy is not for --help; only who uses these waits.
_LATER = {
    "_additive": ("Additive", "additive", "sums_from_json", "sums_to_json"),
    "_evaluate": ("LabelMetric", "RatingMetric", "RougeMetric"),
    "_statistics": ("Difference", "Means", "difference", "holm"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"lampbench.metrics.{module}"), name)
    raise AttributeError(f"module 'lampbench.metrics' has no attribute {name!r}")
