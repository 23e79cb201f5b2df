"""Metrics of machine translation, for texts: BLEU and chrF by sacrebleu, METEOR by nltk; both sides stripped.

No task of LampBench names them: they are for ``lampbench rescore``, and for tasks that name them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from lampbench.core import Metric
from lampbench.metrics import per_query

_ORDERS = 4


def _without_sacrebleu() -> str:
    return "" if find_spec("sacrebleu") else 'sacrebleu is not installed; pip install "lampbench[metrics]"'


def _without_wordnet() -> str:
    if not find_spec("nltk"):
        return 'nltk is not installed; pip install "lampbench[metrics]"'
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return "WordNet's word lists, which METEOR needs, are not installed; python -m nltk.downloader wordnet"
    except (OSError, ValueError) as error:
        return f"WordNet's word lists cannot be read ({error}); python -m nltk.downloader --force wordnet"
    return ""


@cache
def _scorers() -> tuple[Any, Any]:
    from sacrebleu.metrics import bleu, chrf

    # The effective order concerns a sentence's own score, of which only the counts are used.
    return bleu.BLEU(effective_order=True), chrf.CHRF()


def _bleu_counts(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
    """Matching n-grams, n-grams of the answer, words of the answer, and words of the gold."""
    bleu, _ = _scorers()
    found = [bleu.sentence_score(p.strip(), [g.strip()]) for p, g in zip(predictions, golds, strict=True)]
    return [[*own.counts, *own.totals, own.sys_len, own.ref_len] for own in found]


def _bleu(sums: Any) -> Any:
    """Corpus BLEU from summed counts, smoothed as sacrebleu does by default."""
    matches, totals = sums[..., :_ORDERS], sums[..., _ORDERS : 2 * _ORDERS]
    answer, gold = sums[..., -2], sums[..., -1]
    with np.errstate(all="ignore"):
        # The first order without a match counts as half a match, the next as a quarter, and so on.
        halvings = np.cumsum(matches == 0, axis=-1)
        precisions = np.where(matches > 0, matches, 0.5**halvings) / totals
        brevity = np.where(answer < gold, np.exp(1 - gold / answer), 1.0)
        value = 100 * brevity * np.exp(np.log(precisions).mean(axis=-1))
    return np.where((matches[..., 0] > 0) & (totals[..., -1] > 0), value, 0.0)


def _chrf(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> list[float]:
    _, chrf = _scorers()
    return [chrf.sentence_score(p.strip(), [g.strip()]).score for p, g in zip(predictions, golds, strict=True)]


def _meteor(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> list[float]:
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.translate.meteor_score import meteor_score

    words = NLTKWordTokenizer().tokenize
    return [meteor_score([words(g.strip())], words(p.strip())) for p, g in zip(predictions, golds, strict=True)]


BLEU = Metric(
    "BLEU",
    "corpus BLEU of sacrebleu, from 0 to 100",
    True,
    frozenset({"text"}),
    terms=_bleu_counts,
    value=_bleu,
    width=lambda labels: 2 * _ORDERS + 2,
    bounds=(0.0, 100.0),
    missing=_without_sacrebleu,
)
CHRF = per_query(
    "chrF",
    _chrf,
    about="mean of sacrebleu's chrF2 of each answer, from 0 to 100",
    higher_is_better=True,
    kinds=("text",),
    bounds=(0.0, 100.0),
    missing=_without_sacrebleu,
)
METEOR = per_query(
    "METEOR",
    _meteor,
    about="mean of nltk's METEOR, which also counts stems and WordNet's synonyms",
    higher_is_better=True,
    kinds=("text",),
    bounds=(0.0, 1.0),
    missing=_without_wordnet,
)
