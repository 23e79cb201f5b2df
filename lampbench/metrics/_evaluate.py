"""The same metrics as ``evaluate.Metric`` classes, for use outside LampBench; no download, no network.

``RougeMetric().compute(predictions=["a title"], references=["a good title"])`` gives both F-measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from lampbench.core import metrics
from lampbench.metrics._additive import Additive, terms_of

_CITATION = "Salemi et al., LaMP: When Large Language Models Meet Personalization, ACL 2024"


class _LampMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """An ``evaluate.Metric`` that keeps its inputs in memory instead of a cache file."""

    description = ""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=True, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        strings = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.description,
            citation=_CITATION,
            features=datasets.Features({"predictions": strings, "references": strings}),
        )


class LabelMetric(_LampMetric):
    """``accuracy`` and macro ``f1`` over a fixed label list (LaMP-2M, 2N)."""

    description = "Exact-match accuracy and macro-F1 over the full label list"

    def __init__(self, labels: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.labels = tuple(labels)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return _values(("accuracy", "f1"), predictions, references, self.labels)


class RatingMetric(_LampMetric):
    """``MAE`` and ``RMSE`` of ratings given as strings (LaMP-3)."""

    description = "MAE and RMSE; an unreadable prediction counts as the farthest end of the scale"

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return _values(("MAE", "RMSE"), predictions, references)


class RougeMetric(_LampMetric):
    """``rouge-1`` and ``rouge-L`` F-measures, plain means (LaMP-4, 5, 7)."""

    description = "Plain means of ROUGE-1 and ROUGE-L F-measures, no stemming"

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return _values(("rouge-1", "rouge-L"), predictions, references)


def _values(
    names: Sequence[str], predictions: list[str], references: list[str], labels: Sequence[str] = ()
) -> dict[str, float]:
    chosen = [metrics().load(name) for name in names]
    return {m.key: Additive.of(m, terms_of(m, predictions, references, labels)).micro for m in chosen}
