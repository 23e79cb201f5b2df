"""LaMP's metrics of texts: ROUGE F-measures without stemming, both sides stripped.

Each is the plain mean over queries, which the official evaluator's bootstrap median estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

from lampbench.metrics import per_query


def _f_measures(
    name: str, predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]
) -> tuple[float, ...]:
    return _both(tuple(predictions), tuple(golds))[name]


# Kept from one metric to the next: cutting texts into words takes most of the time.
@lru_cache(maxsize=1)
def _both(predictions: tuple[str, ...], golds: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rougeL")
    scorer = RougeScorer(names, use_stemmer=False)
    scores = [scorer.score(g.strip(), p.strip()) for p, g in zip(predictions, golds, strict=True)]
    return {name: tuple(score[name].fmeasure for score in scores) for name in names}


ROUGE_1 = per_query(
    "rouge-1",
    partial(_f_measures, "rouge1"),
    about="F-measure of shared words",
    higher_is_better=True,
    kinds=("text", "labels"),
    bounds=(0.0, 1.0),
)
ROUGE_L = per_query(
    "rouge-L",
    partial(_f_measures, "rougeL"),
    about="F-measure of the longest common subsequence of words",
    higher_is_better=True,
    kinds=("text", "labels"),
    bounds=(0.0, 1.0),
)
