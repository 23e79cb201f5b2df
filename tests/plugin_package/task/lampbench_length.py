"""How far the length of an answer is from that of the user's own, in words."""

import math
from collections.abc import Sequence

from lampbench.metrics import per_query


def _errors(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> list[float]:
    return [abs(len(p.split()) - len(g.split())) for p, g in zip(predictions, golds, strict=True)]


LENGTH_ERROR = per_query(
    "length-error",
    _errors,
    about="mean difference in length, in words",
    higher_is_better=False,
    kinds=("text",),
    bounds=(0.0, math.inf),
)
