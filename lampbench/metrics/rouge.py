"""LaMP's metrics of texts: ROUGE F-measures without stemming, both sides stripped.

Each is the plain mean over queries, which the official evaluator's bootstrap median estimates. They are defined, and
rounded, as by the package rouge-score, with which tests compare them; importing that package takes seconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial

from lampbench.metrics import per_query

_WORD = re.compile(r"[a-z0-9]+")


def _f_measures(
    name: str, predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]
) -> tuple[float, ...]:
    return _both(tuple(predictions), tuple(golds))[name]


# Kept from one metric to the next: cutting texts into words takes most of the time.
@lru_cache(maxsize=1)
def _both(predictions: tuple[str, ...], golds: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    pairs = [(_words(p), _words(g)) for p, g in zip(predictions, golds, strict=True)]
    return {
        "rouge1": tuple(_f_measure(_shared(p, g), len(p), len(g)) for p, g in pairs),
        "rougeL": tuple(_f_measure(_common_subsequence(p, g), len(p), len(g)) for p, g in pairs),
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(text.strip().lower())


def _shared(first: Sequence[str], second: Sequence[str]) -> int:
    """How many words both have, each as often as both have it."""
    return (Counter(first) & Counter(second)).total()


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    A row of the usual table is one integer: bit i is 0 where the row's value grows from the i-th word of ``first`` to the
    next (Hyyrö, Bit-parallel LCS-length computation revisited, 2004).
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    full = row = (1 << len(first)) - 1
    for word in second:
        found = row & places.get(word, 0)
        row = ((row + found) | (row - found)) & full
    return len(first) - row.bit_count()


def _f_measure(shared: int, predicted: int, expected: int) -> float:
    precision, recall = shared / max(predicted, 1), shared / max(expected, 1)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


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
