"""Metrics and answer checks that several tasks share."""

from __future__ import annotations

from lampbench.core import Metric

LABEL_METRICS = (Metric("accuracy", True), Metric("f1", True))
RATING_METRICS = (Metric("MAE", False), Metric("RMSE", False))
TEXT_METRICS = (Metric("rouge-L", True), Metric("rouge-1", True))


def is_rating(output: str) -> bool:
    """Whether an output reads as a number from 1 to 5."""
    try:
        return 1.0 <= float(output) <= 5.0
    except ValueError:
        return False
