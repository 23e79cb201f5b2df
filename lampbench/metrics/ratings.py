"""LaMP's metrics of ratings, as in the official evaluator (``metrics/``), except for "nan" and "inf".

The official evaluator takes them for numbers, and one such answer leaves no score to compare. Here they are not
ratings; the official value is reported as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from lampbench.core import Metric
from lampbench.metrics import per_query
from lampbench.metrics._additive import Array

_SCALE = ("1", "5")


def _errors(
    power: int, official: bool, predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]
) -> Array:
    """A power of how far each prediction is from the gold.

    Predictions are not clipped. One that is not a finite number (officially: not a number) counts as the end of the
    scale, its first or last label, that is farthest from the gold; as the upper end if both are equally far.
    """
    scale = labels or _SCALE
    low, high = float(scale[0]), float(scale[-1])
    errors = []
    for prediction, gold in zip(predictions, map(float, golds), strict=True):
        value = _number(prediction.strip(), official)
        if value is None:
            value = low if abs(low - gold) > abs(high - gold) else high
        errors.append(value - gold)
    return np.asarray(np.abs(np.array(errors, dtype=float)) ** power)


def _number(text: str, official: bool) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if official or math.isfinite(value) else None


def _metric(key: str, about: str, power: int, official: Metric | None = None) -> Metric:
    """The mean, or for power 2 the root of the mean, of that power of the errors."""
    return per_query(
        key,
        partial(_errors, power, official is None),
        about=about,
        higher_is_better=False,
        kinds=("rating",),
        bounds=(0.0, math.inf),
        root=power == 2,
        official=official,
    )


def _with_official(key: str, about: str, power: int) -> Metric:
    return _metric(key, about, power, _metric(key, f"{about}, by the official evaluator", power))


MAE = _with_official("MAE", "mean absolute error of ratings", 1)
RMSE = _with_official("RMSE", "root of the mean squared error of ratings", 2)
