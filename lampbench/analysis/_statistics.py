"""The numbers of both observations (PerFit, section 3 and its Table 1), in pure numpy.

Observation 1: how few directions hold the delta vectors' variance. Observation 2: what the delta vectors
share, and what is each user's own. A matrix has one row per user, shape (users, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SHARES = (0.8, 0.9, 0.95)
# Shares are sums of rounded numbers.
_SLACK = 1e-12
_MOST_DRAWS, _FEWEST_DRAWS, _BUDGET = 1000, 100, 2e9
_NULL_DRAWS = 10
# A spectrum's curve needs no more points than a screen shows.
_CURVE_POINTS = 100
_PERMUTATIONS = 1000
# Below it every pairing of halves is likely to look like every other.
_FEWEST_USERS = 3


@dataclass(frozen=True)
class EffectiveRank:
    """The effective rank at one share of the variance.

    Attributes:
        share: Such as 0.9.
        rank: The smallest number of directions that hold the share.
        per_mille: The rank in thousandths of min(users, width).
        interval: The middle 95% over resamples of users, moved so that their mean is the rank, and rounded
            outwards: a resample has about 63% of the users, and fewer users span fewer directions.
        null: Mean rank of random vectors with the users' own norms.
    """

    share: float
    rank: int
    per_mille: float
    interval: tuple[int, int]
    null: float


@dataclass(frozen=True)
class RankResult:
    """The effective ranks of one matrix.

    Attributes:
        ranks: At each of ``SHARES``.
        draws: Resamples of users that the intervals are from.
        curve: A number of directions, and the share of the variance that so many hold; up to all, evenly on
            a logarithmic axis.
        null_curve: The same of one draw of random vectors.
    """

    ranks: tuple[EffectiveRank, ...]
    draws: int
    curve: tuple[tuple[int, float], ...]
    null_curve: tuple[tuple[int, float], ...]


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
            stepped up to all queries (Spearman-Brown); 0 if halves disagree.
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


@dataclass(frozen=True)
class LayerShifts:
    """Both observations at one layer.

    Attributes:
        layer: Its number, 0-based.
        raw: Effective ranks of the delta vectors as they are.
        centred: The same of their residuals from the mean.
        personal: None if too few users have queries in both halves.
        projection: For plots; not part of the numbers.
    """

    layer: int
    raw: RankResult
    centred: RankResult
    collective: Collective
    personal: Personal | None
    projection: Projection

    def to_json(self) -> dict[str, Any]:
        """Every number, without the points of the plots."""
        facts = asdict(self)
        del facts["projection"]
        return facts


def centred(matrix: Array) -> Array:
    """The rows less their mean."""
    return np.asarray(matrix - matrix.mean(0))


def squares(matrix: Array) -> Array:
    """Squared singular values, largest first, shape (min(users, width),): from the smaller Gram matrix."""
    users, width = matrix.shape
    gram = matrix @ matrix.T if users <= width else matrix.T @ matrix
    return np.asarray(np.clip(np.linalg.eigvalsh(gram)[::-1], 0, None))


def effective_rank(values: Array, share: float) -> int:
    """The smallest r whose first r of ``values`` (largest first) sum to ``share`` of all; 0 if all are 0."""
    return int(_ranks(values[None], share)[0])


def rank_result(matrix: Array, *, centre: bool, draws: int | None, seed: int) -> RankResult:
    """Effective ranks, their intervals and the null.

    Args:
        matrix: Shape (users, width).
        centre: Whether the mean over users is taken off first (in every resample and in the null, too).
        draws: Resamples of users; None for 1000, or fewer if min(users, width) makes that slow.
        seed: Of resamples and null.
    """
    generator = np.random.default_rng(seed)
    rows = centred(matrix) if centre else matrix
    values, size = squares(rows), min(matrix.shape)
    if draws is None:
        draws = int(np.clip(_BUDGET / size**3, _FEWEST_DRAWS, _MOST_DRAWS))
    resampled = resampled_squares(matrix, centre, draws, generator)
    nulls = [_null_squares(rows, centre, generator) for _ in range(_NULL_DRAWS)]
    ranks = tuple(_effective(share, values, resampled, nulls, size) for share in SHARES)
    return RankResult(ranks, draws, _curve(values), _curve(nulls[0]))


def _effective(share: float, values: Array, resampled: Array, nulls: Sequence[Array], size: int) -> EffectiveRank:
    rank = effective_rank(values, share)
    found = _ranks(resampled, share)
    low, high = np.quantile(found, (0.025, 0.975)) - found.mean()
    # Rounded outwards: a rank is a whole number.
    interval = max(min(1, rank), rank + math.floor(low)), min(size, rank + math.ceil(high))
    null = float(_ranks(np.stack(nulls), share).mean())
    return EffectiveRank(share, rank, 1000 * rank / size, interval, null)


def _ranks(values: Array, share: float) -> NDArray[np.int64]:
    """Effective ranks of many spectra, shape (spectra, values)."""
    sums = values.cumsum(1)
    total = sums[:, -1:]
    return np.where(total[:, 0] > 0, (sums < share * total * (1 - _SLACK)).sum(1) + 1, 0)


def resampled_squares(matrix: Array, centre: bool, draws: int, generator: np.random.Generator) -> Array:
    """Squared singular values of resamples of users, shape (draws, min(users, width))."""
    users = len(matrix)
    # In coordinates of the row space a resample is a small weighted Gram matrix.
    rows = _coordinates(matrix)
    found = np.empty((draws, rows.shape[1]))
    for draw in range(draws):
        weights = generator.multinomial(users, np.full(users, 1 / users))
        gram = rows.T @ (rows * weights[:, None])
        if centre:
            mean = weights @ rows / users
            gram -= users * np.outer(mean, mean)
        found[draw] = np.linalg.eigvalsh(gram)[::-1]
    return np.clip(found, 0, None)


def _coordinates(matrix: Array) -> Array:
    """The rows in an orthonormal basis of what they span: as many columns as the smaller side."""
    users, width = matrix.shape
    if users >= width:
        return matrix
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)))


def _null_squares(rows: Array, centre: bool, generator: np.random.Generator) -> Array:
    """The spectrum of random directions with the norms of ``rows``."""
    random = generator.standard_normal(rows.shape)
    random *= (np.linalg.norm(rows, axis=1) / np.linalg.norm(random, axis=1))[:, None]
    return squares(centred(random) if centre else random)


def _curve(values: Array) -> tuple[tuple[int, float], ...]:
    total = values.sum()
    shares = values.cumsum() / total if total > 0 else np.zeros_like(values)
    numbers = np.unique(np.geomspace(1, len(values), _CURVE_POINTS).round().astype(int))
    return tuple((int(number), round(float(shares[number - 1]), 6)) for number in numbers)


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
