"""Users as vectors: the mean of what they wrote, and clusters of users who are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lampbench.core import InputError, Task, User

# Far more than it takes until no user changes the cluster.
_ROUNDS = 300


class TextEncoder(Protocol):
    """Turns texts into vectors, such as ``DenseEncoder``."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, width)."""


def user_vector(task: Task, user: User, encoder: TextEncoder) -> np.ndarray:
    """The mean of the vectors of a user's history items, float64; each item is read as a retriever reads it.

    Raises:
        InputError: The user has no history.
    """
    if not user.history:
        raise InputError(f"user {user.id!r} has no history, of which a vector could be made")
    vectors = encoder.encode([task.document(item) for item in user.history])
    mean: np.ndarray = vectors.astype(np.float64).mean(axis=0)
    return mean


def clusters(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The cluster of each vector, from 0, by k-means from a seeded k-means++ start.

    Args:
        vectors: Shape (vectors, width), float64.
        count: How many clusters; there are fewer if there are fewer different vectors.
        seed: Of the start.
    """
    # Not scipy's kmeans2: it takes distances by BLAS, whose rounding depends on the number of threads.
    from scipy.spatial.distance import cdist

    draw = np.random.default_rng(seed)
    centers = vectors[[draw.integers(len(vectors))]]
    nearest = cdist(vectors, centers, "sqeuclidean")[:, 0]
    while len(centers) < count and nearest.any():
        new = vectors[[draw.choice(len(vectors), p=nearest / nearest.sum())]]
        centers = np.concatenate([centers, new])
        nearest = np.minimum(nearest, cdist(vectors, new, "sqeuclidean")[:, 0])
    labels = np.full(len(vectors), -1)
    for _ in range(_ROUNDS):
        found = cdist(vectors, centers, "sqeuclidean").argmin(axis=1)
        if (found == labels).all():
            break
        labels = found
        members = [vectors[labels == number] for number in range(len(centers))]
        centers = np.stack([own.mean(axis=0) if len(own) else old for own, old in zip(members, centers, strict=True)])
    return labels
