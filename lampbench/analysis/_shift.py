"""Observation 2: what the delta vectors share, and what is each user's own (PerFit, section 3).

Pure numpy. A matrix has a row a user, shape (users, width).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lampbench.analysis._rank import centred

Array = NDArray[np.float64]
_PERMUTATIONS = 1000
# Below it every pairing of halves is likely to look like every other.
_FEWEST_USERS = 3


@dataclass(frozen=True)
class Collective:
    """The shift that users share.

    Attributes:
        norm: Of the mean vector.
        spread: Root mean square distance of users from it.
        share: Squared norm of the mean over the users' mean squared norm: the part of the second moment
            that one vector for all explains.
        chance: What ``share`` is expected to be for random directions: 1 / users.
        cosines: 10%, 50% and 90% quantile of a user's cosine with the mean of all others.
    """

    norm: float
    spread: float
    share: float
    chance: float
    cosines: tuple[float, float, float]


@dataclass(frozen=True)
class Personal:
    """The shift that is each user's own: residuals from the mean, in two halves of the user's queries.

    Attributes:
        users: Who have queries in both halves.
        within: Mean cosine of a user's two halves.
        between: Mean cosine of one user's first half and another's second.
        identified: Share of users whose first half is nearest, by cosine, to their own second half.
        chance: What ``identified`` is without a personal shift: 1 / users.
        p: Of ``within`` under random pairings of halves.
        reliable: Part of the residuals' variance that comes again in other queries: the split-half correlation,
            stepped up to all queries (Spearman-Brown); 0 where halves disagree.
    """

    users: int
    within: float
    between: float
    identified: float
    chance: float
    p: float
    reliable: float


@dataclass(frozen=True)
class Projection:
    """Users in two dimensions.

    Attributes:
        points: Along the collective shift, and along the first principal component of what is left;
            the origin is no shift. Shape (users, 2).
        shares: Of the second moment, of each axis.
    """

    points: Array
    shares: tuple[float, float]


def collective(matrix: Array) -> Collective:
    """The collective shift of two or more users."""
    users, mean = len(matrix), matrix.mean(0)
    others = (users * mean - matrix) / (users - 1)
    low, middle, high = np.quantile(_cosines(matrix, others), (0.1, 0.5, 0.9))
    moment = float((matrix**2).sum(1).mean())
    norm = float(np.linalg.norm(mean))
    return Collective(
        norm=norm,
        spread=float(np.sqrt((centred(matrix) ** 2).sum(1).mean())),
        share=norm**2 / moment if moment else 0.0,
        chance=1 / users,
        cosines=(float(low), float(middle), float(high)),
    )


def personal(first: Array, second: Array, seed: int) -> Personal | None:
    """What two halves of users' queries agree on beyond the mean; None with fewer than three users.

    Args:
        first: Each user's mean over one half; users with a NaN in either half are left out.
        second: Over the other half.
        seed: Of the random pairings.
    """
    both = np.isfinite(first).all(1) & np.isfinite(second).all(1)
    users = int(both.sum())
    if users < _FEWEST_USERS:
        return None
    one, other = centred(first[both]), centred(second[both])
    cosines = _units(one) @ _units(other).T
    within = float(cosines.diagonal().mean())
    between = float((cosines.sum() - cosines.trace()) / (users * (users - 1)))
    generator, rows = np.random.default_rng(seed), np.arange(users)
    paired = np.array([cosines[rows, generator.permutation(users)].mean() for _ in range(_PERMUTATIONS)])
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    correlation = max(0.0, float((one * other).sum()) / scale) if scale else 0.0
    return Personal(
        users=users,
        within=within,
        between=between,
        identified=float((cosines.argmax(1) == rows).mean()),
        chance=1 / users,
        # A pairing that happens to be the true one is as large as it, up to rounding.
        p=float((1 + (paired >= within - 1e-12).sum()) / (1 + _PERMUTATIONS)),
        reliable=2 * correlation / (1 + correlation),
    )


def project(matrix: Array) -> Projection:
    """Users along the collective shift and the strongest direction beside it."""
    mean = matrix.mean(0)
    norm = np.linalg.norm(mean)
    first = mean / norm if norm else np.eye(1, matrix.shape[1])[0]
    beside = centred(matrix) - np.outer(centred(matrix) @ first, first)
    second = np.linalg.svd(beside, full_matrices=False)[2][0]
    # A singular vector's sign is the library's choice; fixed, so that plots stay.
    second *= np.sign(second[np.abs(second).argmax()]) or 1.0
    points = matrix @ np.stack([first, second], axis=1)
    moment = float((matrix**2).sum())
    shares = (points**2).sum(0) / moment if moment else np.zeros(2)
    return Projection(points, (float(shares[0]), float(shares[1])))


def _units(matrix: Array) -> Array:
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.where(norms > 0, norms, 1))


def _cosines(one: Array, other: Array) -> Array:
    return np.asarray((_units(one) * _units(other)).sum(1))
