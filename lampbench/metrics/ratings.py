"""LaMP's metrics of ratings, as in the official evaluator (``metrics/``)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lampbench.metrics import per_query
from lampbench.metrics._additive import Array

_SCALE = ("1", "5")


def _errors(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> Array:
    """Prediction minus gold, per query; may be NaN or infinite, because "nan" and "inf" are read as numbers.

    Predictions are not clipped. One that is no number counts as the end of the scale (the first and the last label)
    that is farthest from the gold; as the upper end if both are as far.
    """
    scale = labels or _SCALE
    low, high = float(scale[0]), float(scale[-1])
    return np.array(
        [_rating(p.strip(), float(g), low, high) - float(g) for p, g in zip(predictions, golds, strict=True)]
    )


def _rating(prediction: str, gold: float, low: float, high: float) -> float:
    try:
        return float(prediction)
    except ValueError:
        return low if abs(low - gold) > abs(high - gold) else high


MAE = per_query(
    "MAE",
    lambda predictions, golds, labels: np.abs(_errors(predictions, golds, labels)),
    about="mean absolute error of ratings",
    higher_is_better=False,
    kinds=("rating",),
    bounds=(0.0, math.inf),
)
RMSE = per_query(
    "RMSE",
    lambda predictions, golds, labels: _errors(predictions, golds, labels) ** 2,
    about="root of the mean squared error of ratings",
    higher_is_better=False,
    kinds=("rating",),
    bounds=(0.0, math.inf),
    root=True,
)
