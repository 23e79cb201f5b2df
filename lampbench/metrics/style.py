"""How far the style of a user's answers is from that of the user's own texts, whatever they are about.

Four habits are compared, each as a few rates: length (words per text), punctuation (marks per word), casing (of
letters, of words' first letters, of whole words) and function words (English ones, per word). The distance of a habit
is the sum of absolute differences of its rates by the sum of all its rates (Bray and Curtis): 0 if both sides have the
same rates, 1 if they share nothing. The metric is the mean of the four. Rates are of all texts of a user together, so
the mean over users is the number to read: over all queries together, users' habits average out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lampbench.core import Metric

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_MARKS = ".,;:!?'\"()-–—…#@/*"
# Words that say little of what a text is about, by which authors are told apart.
_FUNCTION_WORDS = (
    "a an the and or but nor so if because although while of in on at by for with from to into over under about "
    "between i me my we us our you your he him his she her it its they them their this that these those who which what "
    "there is are was were be been am have has had do does did will would can could should may might must not no very "
    "just also too only then than as how when where"
)
_PLACE = {word: place for place, word in enumerate(_FUNCTION_WORDS.split())}
_TEXT, _WORDS, _LETTERS = 0, 1, 2
_CASING = 3
_PUNCTUATION = _CASING + 3
_FUNCTION = _PUNCTUATION + len(_MARKS)
_WIDTH = _FUNCTION + len(_PLACE)


def _counts(text: str) -> list[float]:
    """What is counted in one text; ``_rates`` reads it by its places."""
    words, marks = _WORD.findall(text), Counter(text)
    own = [0.0] * len(_PLACE)
    for word in words:
        place = _PLACE.get(word.lower())
        if place is not None:
            own[place] += 1
    letters = sum(map(str.isalpha, text))
    upper = sum(map(str.isupper, text))
    first = sum(word[0].isupper() for word in words)
    shouted = sum(len(word) > 1 and word.isupper() for word in words)
    return [1.0, len(words), letters, upper, first, shouted, *(float(marks[mark]) for mark in _MARKS), *own]


def _terms(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
    return [_counts(p.strip()) + _counts(g.strip()) for p, g in zip(predictions, golds, strict=True)]


def _habits(sums: Any) -> list[Any]:
    """The rates of the four habits, from what was counted in some texts."""

    def per(counts: Any, total: int) -> Any:
        of = sums[..., total, None]
        return np.where(of > 0, counts / np.where(of > 0, of, 1), 0.0)

    letters, words = sums[..., _CASING, None], sums[..., _CASING + 1 : _PUNCTUATION]
    return [
        per(sums[..., _WORDS, None], _TEXT),
        per(sums[..., _PUNCTUATION:_FUNCTION], _WORDS),
        np.concatenate([per(letters, _LETTERS), per(words, _WORDS)], axis=-1),
        per(sums[..., _FUNCTION:], _WORDS),
    ]


def _distance(sums: Any) -> Any:
    pairs = zip(_habits(sums[..., :_WIDTH]), _habits(sums[..., _WIDTH:]), strict=True)
    return np.mean([_apart(answers, golds) for answers, golds in pairs], axis=0)


def _apart(answers: Any, golds: Any) -> Any:
    """The distance of Bray and Curtis; 0 if neither side has any of it."""
    both = (answers + golds).sum(axis=-1)
    return np.abs(answers - golds).sum(axis=-1) / np.where(both > 0, both, 1)


STYLE = Metric(
    "style",
    "distance of answers from the user's style: length, marks, casing, function words; 0 to 1",
    False,
    frozenset({"text"}),
    terms=_terms,
    value=_distance,
    width=lambda labels: 2 * _WIDTH,
    bounds=(0.0, 1.0),
)
