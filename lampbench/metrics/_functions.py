"""LaMP's official metrics, query by query.

Each follows the official evaluator (LaMP repository, ``eval/evaluation.py`` and
``metrics/``): both sides stripped, nothing else. ROUGE is the plain mean over queries, which the
official bootstrap median estimates.
"""

from __future__ import annotations

from collections.abc import Sequence


def accuracy(predictions: Sequence[str], golds: Sequence[str]) -> list[float]:
    """1.0 or 0.0 a query: exact, case-sensitive match."""
    return [float(p.strip() == g.strip()) for p, g in zip(predictions, golds, strict=True)]


def rating_errors(predictions: Sequence[str], golds: Sequence[str]) -> list[float]:
    """Prediction minus gold a query; may be NaN or infinite, because "nan" and "inf" are read as numbers.

    Predictions are not clipped. One that is no number counts as the end of the scale that is
    farthest from the gold; as 5 where the gold is 3.
    """
    return [_rating(p.strip(), float(g)) - float(g) for p, g in zip(predictions, golds, strict=True)]


def rouge(predictions: Sequence[str], golds: Sequence[str]) -> dict[str, list[float]]:
    """ROUGE-1 and ROUGE-L F-measures a query (``rouge-1``, ``rouge-L``), without stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    scores = [scorer.score(g.strip(), p.strip()) for p, g in zip(predictions, golds, strict=True)]
    return {
        "rouge-1": [score["rouge1"].fmeasure for score in scores],
        "rouge-L": [score["rougeL"].fmeasure for score in scores],
    }


def _rating(prediction: str, gold: float) -> float:
    try:
        return float(prediction)
    except ValueError:
        return 1.0 if abs(1.0 - gold) > abs(5.0 - gold) else 5.0
