"""BM25 with the ranking of rank_bm25's Okapi variant, which OPPU's released code uses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

_K1 = 1.5
_B = 0.75
_EPSILON = 0.25


class Bm25Index:
    """An index over one user's documents, built once and queried many times.

    Documents and queries are split on single spaces. A term that occurs in more than half of the
    documents has a negative idf, which is replaced by a quarter of the mean idf. Scores equal
    rank_bm25's bit for bit; of equal scores, the later document comes first, which is what
    reversing an ascending stable sort gives.

    A query may see the first documents only: the answer is that of an index over these alone, without
    building one.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        """Build the index. Raises ValueError if there are no documents."""
        if not documents:
            raise ValueError("BM25 needs at least one document")
        counts = [Counter(document.split(" ")) for document in documents]
        self._lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        self._postings = _postings(counts)
        # Every occurrence of a term in a document, document after document; terms in order of appearance.
        numbers = {term: number for number, term in enumerate(self._postings)}
        self._numbers = numbers
        self._terms = np.array([numbers[term] for count in counts for term in count])
        self._ends = np.cumsum([len(count) for count in counts])
        self._idf_of: tuple[int, np.ndarray] = (0, np.zeros(0))

    def scores(self, query: str, before: int | None = None) -> np.ndarray:
        """The score of every document, or of the first ``before``: shape (documents,), float64."""
        size = len(self._lengths) if before is None else min(before, len(self._lengths))
        scores = np.zeros(size)
        if not size:
            return scores
        lengths = self._lengths[:size]
        length_norm = _K1 * (1 - _B + _B * lengths / (lengths.sum() / size))
        idf = self._idf(size)
        for term in query.split(" "):
            if term not in self._postings:
                continue
            rows, frequencies = self._postings[term]
            seen = int(np.searchsorted(rows, size))
            gains = frequencies[:seen] * (_K1 + 1) / (frequencies[:seen] + length_norm[rows[:seen]])
            scores[rows[:seen]] += idf[self._numbers[term]] * gains
        return scores

    def top(self, query: str, k: int, before: int | None = None) -> list[int]:
        """Indices of the ``k`` best documents (of the first ``before``), best first."""
        order = np.argsort(self.scores(query, before), kind="stable")[::-1]
        return [int(row) for row in order[:k]]

    def _idf(self, size: int) -> np.ndarray:
        """The idf of every term among the first ``size`` documents; 0 for those that do not occur."""
        if size != self._idf_of[0]:
            # Only the last one is kept: test queries all see the same documents.
            self._idf_of = (size, self._compute_idf(size))
        return self._idf_of[1]

    def _compute_idf(self, size: int) -> np.ndarray:
        holding = np.bincount(self._terms[: self._ends[size - 1]], minlength=len(self._numbers))
        # By math.log, as in the reference: numpy's may differ in the last bit. Few counts occur.
        by_count = {
            count: math.log(size - count + 0.5) - math.log(count + 0.5) for count in set(holding.tolist()) - {0}
        }
        idf = np.array([by_count.get(count, 0.0) for count in holding.tolist()])
        # A running sum, as in the reference: another order of addition would change the last bit.
        floor = _EPSILON * (float(np.cumsum(idf)[-1]) / int((holding > 0).sum()))
        return np.where(idf >= 0, idf, floor)


def _postings(counts: Sequence[Counter[str]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rows: dict[str, tuple[list[int], list[int]]] = {}
    for row, count in enumerate(counts):
        for term, frequency in count.items():
            where, how_often = rows.setdefault(term, ([], []))
            where.append(row)
            how_often.append(frequency)
    return {term: (np.array(r), np.array(f, dtype=np.float64)) for term, (r, f) in rows.items()}
