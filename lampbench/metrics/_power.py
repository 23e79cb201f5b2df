"""The smallest difference between two methods that some users and queries could show."""

from __future__ import annotations

import numpy as np

from lampbench.metrics._additive import Additive, Array, mean
from lampbench.metrics._scores import LEVEL
from lampbench.metrics._statistics import Means

POWER = 0.8
_TRIALS = 200
_FLIPS = 999
# Differences that are tried, in standard errors; for many users, 2.8 of them are found in 80% of all trials.
_TRIED = np.linspace(1.0, 6.0, 26)


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
    generator = np.random.default_rng(seed)
    users = len(differences)
    error = float(np.sqrt(((differences * queries) ** 2).sum()) / queries.sum())
    if not error:
        return None
    shifts = _TRIED * error
    found = np.zeros(len(shifts))
    for _ in range(_TRIALS):
        drawn = generator.integers(users, size=users)
        own, count = differences[drawn] * generator.choice([-1.0, 1.0], size=users), queries[drawn]
        sums = [np.stack([(own + shift) * count, count], axis=1) for shift in shifts]
        nothing = np.stack([np.zeros(users), count], axis=1)
        groups = [[Additive(each, mean, linear=True)] for each in (*sums, nothing)]
        p_values = Means(groups, seed=seed, resamples=_FLIPS).p_values(range(len(sums)), len(sums))
        found += np.array(p_values) < LEVEL
    share = found / _TRIALS
    # More is found of a larger difference, but for the luck of trials.
    enough = np.flatnonzero(np.maximum.accumulate(share) >= POWER)
    return float(shifts[enough[0]]) if len(enough) else None
