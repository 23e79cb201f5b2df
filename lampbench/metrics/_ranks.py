"""Which methods of a board can be told apart, with one level for all of them, and the rank groups that follow.

Every pair of methods is tested, so that it does not matter which one turned out best. Under the null that two
methods do not differ, which of them answered a user is a coin flip; all pairs get the same flips, and the largest
studentized difference of each flip is what a pair has to exceed (Westfall and Young's max-T). What is found is
taken out and the rest is tested again (step-down: Romano and Wolf, JASA 100, 2005). How the differences of a pair
are distributed under flips depends on that pair alone, so other methods, however good, do not disturb the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from lampbench.metrics._additive import Array
from lampbench.metrics._scores import LEVEL
from lampbench.metrics._statistics import Means

FLIPS = 2000
# Of boards with very many methods fewer flips are drawn: the level does not depend on how many, only the power does.
_FEWEST_FLIPS = 400
_MOST_NUMBERS = 50_000_000
# Equal but for rounding.
_ALIKE = 1e-9

_Flags = np.ndarray[Any, np.dtype[np.bool_]]


def rank_groups(
    means: Means,
    order: Sequence[int],
    *,
    higher_is_better: bool,
    level: float = LEVEL,
    flips: int = FLIPS,
    seed: int = 0,
) -> list[int]:
    """The ranks of methods that are given best first.

    A group ends with the first method that is significantly worse than the group's best; that method's place is the
    next group's rank. The chance that any group of the board ends at a method that is not worse than the group's
    best is at most ``level``.

    Args:
        means: The primary metric of all methods.
        order: Places in ``means``, best value first; all have a finite value.
        higher_is_better: The metric's direction.
        level: Of all comparisons together.
        flips: How many are drawn. All there are, if they are no more.
        seed: Of the flips.
    """
    if not order:
        return []
    above = told_apart(means.contributions(order), level=level, flips=flips, seed=seed)
    better = above if higher_is_better else above.T
    ranks: list[int] = []
    best = 0
    for place in range(len(order)):
        if better[best, place]:
            best = place
        ranks.append(best + 1)
    return ranks


def told_apart(own: Array, *, level: float = LEVEL, flips: int = FLIPS, seed: int = 0) -> _Flags:
    """Which methods' totals are significantly above which others'.

    Args:
        own: What each user adds to each method, shape (methods, users).
        level: The largest chance of any wrong finding.
        flips: How many are drawn at most.
        seed: Of the flips.

    Returns:
        Shape (methods, methods): whether the first is above the second.
    """
    numbers = np.asarray(np.isfinite(own).all(axis=1))
    own = np.where(numbers[:, None], own, 0)
    with np.errstate(over="ignore"):
        scale, observed = _studentized(own)
    # A pair has no say if its answers are the same, or if they have no number.
    pairs = np.triu((scale > 0) & np.outer(numbers, numbers), 1)
    still, fewer = pairs.copy(), max(_FEWEST_FLIPS, _MOST_NUMBERS // max(1, int(pairs.sum())))
    flipped = own @ _flips(own.shape[1], seed, min(flips, fewer)).T
    while still.any():
        found = still & (np.abs(observed) > _critical(flipped, scale, still, level) + _ALIKE)
        if not found.any():
            break
        still &= ~found
    separate = pairs & ~still
    return np.array((separate & (observed > 0)) | (separate & (observed < 0)).T)


def _studentized(own: Array) -> tuple[Array, Array]:
    """Of each pair: 1 / the spread of the difference under flips, and the observed difference in this unit.

    Both have shape (methods, methods); a pair without a spread has zeros.
    """
    scale, observed = np.zeros((2, len(own), len(own)))
    for place, first in enumerate(own):
        gaps = first - own[place + 1 :]
        spread = np.sqrt((gaps**2).sum(axis=1))
        known = np.isfinite(spread) & (spread > _ALIKE * np.abs(first).max(initial=0))
        np.divide(1, spread, out=scale[place, place + 1 :], where=known)
        np.multiply(gaps.sum(axis=1), scale[place, place + 1 :], out=observed[place, place + 1 :], where=known)
    return scale, observed


def _critical(flipped: Array, scale: Array, pairs: _Flags, level: float) -> float:
    """What the largest of these pairs' studentized differences exceeds in no more than ``level`` of the flips."""
    largest = np.zeros(flipped.shape[1])
    for place in np.flatnonzero(pairs.any(axis=1)):
        others = np.flatnonzero(pairs[place])
        gaps = flipped[others] - flipped[place]
        gaps *= scale[place, others, None]
        np.maximum(largest, np.abs(gaps, out=gaps).max(axis=0), out=largest)
    allowed = math.floor(level * len(largest) + _ALIKE)
    return float(np.partition(largest, -allowed - 1)[-allowed - 1])


@lru_cache(maxsize=8)
def _flips(users: int, seed: int, count: int) -> Array:
    """Signs of users, shape (flips, users). The first flip is none at all: what was observed counts, too."""
    if 2 ** (users - 1) <= count:
        # All of them, but for those that only change every sign.
        numbers = np.arange(2 ** (users - 1))[:, None] >> np.arange(users)[None]
        return np.array(1 - 2 * (numbers & 1), dtype=float)
    signs = 2 * np.random.default_rng([seed, users]).integers(0, 2, size=(count, users)) - 1
    signs[0] = 1
    return np.array(signs, dtype=float)
