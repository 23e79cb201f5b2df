"""How alike an answer and the user's own text are to an encoder, as a metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampbench.core import Metric
from lampbench.metrics import per_query
from lampbench.retrieval._dense import DenseEncoder


def similarity(encoder: DenseEncoder, key: str) -> Metric:
    """The mean cosine between the vectors of answers and golds.

    Args:
        encoder: Makes the vectors.
        key: The metric's name, which should name the encoder: values of two encoders cannot be compared.
    """

    def cosines(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> list[float]:
        answered = [place for place, text in enumerate(predictions) if text.strip()]
        values = [0.0] * len(golds)
        if answered:
            answers = encoder.encode([predictions[place].strip() for place in answered])
            wanted = encoder.encode([golds[place].strip() for place in answered])
            lengths = np.linalg.norm(answers, axis=1) * np.linalg.norm(wanted, axis=1)
            found = (answers * wanted).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
            for place, value in zip(answered, found.tolist(), strict=True):
                values[place] = value
        return values

    return per_query(
        key,
        cosines,
        about="mean cosine between vectors of answer and gold; an empty answer counts as 0",
        higher_is_better=True,
        kinds=("text",),
        bounds=(-1.0, 1.0),
    )
