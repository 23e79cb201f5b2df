"""The smallest difference between two methods that some users and queries could show."""

from __future__ import annotations

import numpy as np

from lampbench.metrics._additive import Array
from lampbench.metrics._scores import LEVEL

POWER = 0.8
_TRIALS = 1000
_FLIPS = 999
# Differences that are tried, in standard errors; for many users, 2.8 of them are found in 80% of all trials.
_TRIED = np.linspace(1.0, 6.0, 26)
# Users at a time, so that memory does not grow with them.
_BLOCK = 256


def smallest_difference(differences: Array, queries: Array, *, seed: int = 0) -> float | None:
    """The difference over all queries that the paired permutation test finds in 80% of all trials.

    In each trial, users are drawn from those given, each with a random sign: so large are the differences of two
    methods that are equally good. The difference is added to each query, and the test that compares methods is made.

    Args:
        differences: Each user's mean difference between two sets of answers.
        queries: How many queries each user has.
        seed: Of the trials.

    Returns:
        The difference; None if the test finds none of those tried, however large: there are too few users.
    """
    error = float(np.sqrt(((differences * queries) ** 2).sum()) / queries.sum())
    if not error:
        return None
    shifts = _TRIED * error
    luck, counts = _flipped(differences, queries, np.random.default_rng(seed))
    share = np.zeros(len(shifts))
    for place, shift in enumerate(shifts):
        # The sums are linear in the shift: one pass over users tells them for all.
        gaps = np.abs(luck + shift * counts) / queries.sum()
        extreme = (gaps[1:] >= gaps[0] - 1e-12).sum(axis=0)
        share[place] = ((1 + extreme) / (1 + _FLIPS) < LEVEL).mean()
    # More is found of a larger difference, but for the luck of trials.
    enough = np.flatnonzero(np.maximum.accumulate(share) >= POWER)
    return float(shifts[enough[0]]) if len(enough) else None


def _flipped(differences: Array, queries: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Sums over the users of each trial, as they are and with random users' signs changed.

    Returns:
        Of differences times queries, and of queries; both of shape (1 + flips, trials).
    """
    luck, counts = np.zeros((2, 1 + _FLIPS, _TRIALS))
    for start in range(0, len(differences), _BLOCK):
        size = min(_BLOCK, len(differences) - start)
        drawn = generator.integers(len(differences), size=(size, _TRIALS))
        own = differences[drawn] * generator.choice([-1.0, 1.0], size=drawn.shape)
        signs = generator.choice([-1.0, 1.0], size=(1 + _FLIPS, size))
        signs[0] = 1
        luck += signs @ (own * queries[drawn])
        counts += signs @ queries[drawn]
    return luck, counts
