"""Observation 1: how few directions hold the delta vectors' variance (PerFit, its Table 1).

Pure numpy. A matrix has a row a user, shape (users, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def centred(matrix: Array) -> Array:
    """The rows less their mean."""
    return np.asarray(matrix - matrix.mean(0))


def squares(matrix: Array) -> Array:
    """Squared singular values, largest first, shape (min(users, width),): from the smaller Gram matrix."""
    users, width = matrix.shape
    gram = matrix @ matrix.T if users <= width else matrix.T @ matrix
    return np.asarray(np.clip(np.linalg.eigvalsh(gram)[::-1], 0, None))


def effective_rank(values: Array, share: float) -> int:
    """The smallest r whose first r of ``values`` (largest first) sum to ``share`` of all; 0 where all are 0."""
    return int(_ranks(values[None], share)[0])


def rank_result(matrix: Array, *, centre: bool, draws: int | None, seed: int) -> RankResult:
    """Effective ranks, their intervals and the null.

    Args:
        matrix: Shape (users, width).
        centre: Whether the mean over users is taken off first (in every resample and in the null, too).
        draws: Resamples of users; None for 1000, or fewer where min(users, width) makes that slow.
        seed: Of resamples and null.
    """
    generator = np.random.default_rng(seed)
    rows = centred(matrix) if centre else matrix
    values, size = squares(rows), min(matrix.shape)
    if draws is None:
        draws = int(np.clip(_BUDGET / size**3, _FEWEST_DRAWS, _MOST_DRAWS))
    resampled = _resampled_squares(matrix, centre, draws, generator)
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


def _resampled_squares(matrix: Array, centre: bool, draws: int, generator: np.random.Generator) -> Array:
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
