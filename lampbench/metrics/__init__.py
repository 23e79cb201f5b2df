"""LaMP's metrics: scores for the runner, ``evaluate.Metric`` classes for everyone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lampbench.metrics._scores import Score, invalid_outputs, score

if TYPE_CHECKING:
    from lampbench.metrics._evaluate import LabelMetric, RatingMetric, RougeMetric

__all__ = ["LabelMetric", "RatingMetric", "RougeMetric", "Score", "invalid_outputs", "score"]


def __getattr__(name: str) -> Any:
    # evaluate and datasets take seconds to import; only users of these classes wait for them.
    if name in ("LabelMetric", "RatingMetric", "RougeMetric"):
        from lampbench.metrics import _evaluate

        return getattr(_evaluate, name)
    raise AttributeError(f"module 'lampbench.metrics' has no attribute {name!r}")
