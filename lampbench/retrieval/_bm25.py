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
    """An index over one user's documents, built once and asked many times.

    Documents and queries are split on single spaces. A term that occurs in more than half of the
    documents has a negative idf, which is replaced by a quarter of the mean idf. Scores equal
    rank_bm25's bit for bit; of equal scores, the later document comes first, which is what
    reversing an ascending stable sort gives.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        """Build the index. Raises ValueError where there are no documents."""
        if not documents:
            raise ValueError("BM25 needs at least one document")
        counts = [Counter(document.split(" ")) for document in documents]
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        self._size = len(documents)
        self._length_norm = _K1 * (1 - _B + _B * lengths / (lengths.sum() / self._size))
        self._postings = _postings(counts)
        self._idf = _idf(self._postings, self._size)

    def scores(self, query: str) -> np.ndarray:
        """The score of every document, shape (documents,), float64."""
        scores = np.zeros(self._size)
        for term in query.split(" "):
            posting = self._postings.get(term)
            if posting is None:
                continue
            rows, frequencies = posting
            gains = frequencies * (_K1 + 1) / (frequencies + self._length_norm[rows])
            scores[rows] += self._idf[term] * gains
        return scores

    def top(self, query: str, k: int) -> list[int]:
        """Indices of the ``k`` best documents, best first."""
        order = np.argsort(self.scores(query), kind="stable")[::-1]
        return [int(row) for row in order[:k]]


def _postings(counts: Sequence[Counter[str]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rows: dict[str, tuple[list[int], list[int]]] = {}
    for row, count in enumerate(counts):
        for term, frequency in count.items():
            where, how_often = rows.setdefault(term, ([], []))
            where.append(row)
            how_often.append(frequency)
    return {term: (np.array(r), np.array(f, dtype=np.float64)) for term, (r, f) in rows.items()}


def _idf(postings: dict[str, tuple[np.ndarray, np.ndarray]], size: int) -> dict[str, float]:
    idf = {term: math.log(size - len(rows) + 0.5) - math.log(len(rows) + 0.5) for term, (rows, _) in postings.items()}
    # A running sum, as in the reference: another order of addition would change the last bit.
    floor = _EPSILON * (sum(idf.values()) / len(idf))
    return {term: value if value >= 0 else floor for term, value in idf.items()}
