"""How sure a score is, and whether two methods differ: users are what is resampled, never queries.

Queries of one user are alike; resampling them one by one would call noise a result. Everything here
is seeded and vectorised over resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np

from lampbench.metrics._additive import Additive, Array
from lampbench.metrics._estimate import Estimate, finite

RESAMPLES = 10_000
# How many numbers a block of resamples may hold.
_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two methods on the same queries, the second subtracted from the first.

    Attributes:
        micro: Over all queries.
        macro: The mean over users; None where a user's own value says nothing.
        p: Two-sided permutation test of ``micro``: under the null, which of the two answered a user
            is a coin flip.
    """

    micro: Estimate
    macro: Estimate | None
    p: float


def estimate(metric: Additive, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Estimate, Estimate | None]:
    """The metric over queries and over users, each with an interval from a bootstrap over users."""
    return estimate_mean([metric], seed=seed, resamples=resamples)


def estimate_mean(
    metrics: Sequence[Additive], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Estimate, Estimate | None]:
    """The mean of one metric over several seeds' answers to the same queries; users are resampled once for all."""
    own = _own(metrics) if metrics[0].per_user else None
    pooled = _pooled(metrics)
    return _both(lambda weights: _over_queries(pooled, weights), own, len(metrics[0].sums), seed, resamples)


def difference(
    first: Sequence[Additive], second: Sequence[Additive], *, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Compare two methods' answers to the same queries, each perhaps over several seeds.

    Args:
        first: One metric of the first method, an entry a seed; users in one order everywhere.
        second: The same of the second.
        seed: Of the resampling.
        resamples: Bootstrap resamples, and as many permutations.
    """

    ours, theirs = _pooled(first), _pooled(second)

    def micro(weights: Array) -> Array:
        return _over_queries(ours, weights) - _over_queries(theirs, weights)

    own = _own(first) - _own(second) if first[0].per_user else None
    over_queries, over_users = _both(micro, own, len(first[0].sums), seed, resamples)
    return Difference(over_queries, over_users, permutation_p(first, second, seed=seed, resamples=resamples))


def permutation_p(
    first: Sequence[Additive], second: Sequence[Additive], *, seed: int = 0, resamples: int = RESAMPLES
) -> float:
    """Two-sided p of the difference over queries: under the null, who answered a user is a coin flip.

    NaN where the difference is not finite.
    """
    users = len(first[0].sums)
    parts = _pooled(first), _pooled(second)

    def statistic(swapped: Array) -> Array:
        kept = 1 - swapped
        ours, theirs = ([(kept @ m.sums, swapped @ m.sums) for m in part] for part in parts)
        value = first[0].value
        # Every seed of one with every seed of the other: the means over pairs are the methods' own means.
        gaps = [
            value(a_kept + b_moved) - value(b_kept + a_moved) for a_kept, a_moved in ours for b_kept, b_moved in theirs
        ]
        return np.asarray(np.abs(np.mean(gaps, axis=0)))

    observed = float(statistic(np.zeros((1, users)))[0])
    if not math.isfinite(observed):
        return math.nan
    extreme = sum(int((statistic(part) >= observed - 1e-12).sum()) for part in _drawn(users, seed, resamples, _coins))
    return (1 + extreme) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of several p-values, in their order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _pooled(metrics: Sequence[Additive]) -> Sequence[Additive]:
    """Fewer metrics of the same mean, where sums can be averaged instead of values."""
    if not metrics[0].linear or len(metrics) == 1:
        return metrics
    return [replace(metrics[0], sums=np.mean([metric.sums for metric in metrics], axis=0))]


def _over_queries(metrics: Sequence[Additive], weights: Array) -> Array:
    """The mean over seeds of the metric over all queries, for each row of weights of users."""
    return np.asarray(np.mean([metric.value(weights @ metric.sums) for metric in metrics], axis=0))


def _own(metrics: Sequence[Additive]) -> Array:
    """Each user's own value, the mean over seeds."""
    return np.asarray(np.mean([metric.own for metric in metrics], axis=0))


def _both(
    micro: Callable[[Array], Array], own: Array | None, users: int, seed: int, resamples: int
) -> tuple[Estimate, Estimate | None]:
    everyone = np.ones((1, users))
    drawn_micro, drawn_macro = [], []
    value = float(micro(everyone)[0])
    if not math.isfinite(value):
        return Estimate(None), None if own is None else Estimate(finite(float(own.mean())))
    for weights in _resamples(users, seed, resamples):
        drawn_micro.append(micro(weights))
        if own is not None:
            drawn_macro.append(weights @ own / users)
    over_queries = _estimate(value, drawn_micro, users)
    return over_queries, None if own is None else _estimate(float(own.mean()), drawn_macro, users)


def _estimate(value: float, drawn: Sequence[Array], users: int) -> Estimate:
    resampled = np.concatenate(drawn) if drawn else np.empty(0)
    if users < 2 or not np.isfinite(resampled).all():
        return Estimate(value)
    tail = _tail(users)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    # The plug-in variance is too small by (users - 1) / users, as the quantiles are.
    stderr = float(resampled.std() * math.sqrt(users / (users - 1)))
    return Estimate(value, (float(low), float(high)), stderr)


@cache
def _tail(users: int) -> float:
    """The share below a percentile interval, wider for few users.

    A bootstrap over n units draws too little spread, as if the variance were divided by n and a
    normal quantile stood for Student's; this puts both right (the expanded percentile interval:
    Hesterberg, The American Statistician 69(4), 2015).
    """
    # Student's quantile; scipy.stats has it too, but takes a second to import.
    from scipy.special import stdtrit

    quantile = float(stdtrit(users - 1, 0.975)) * math.sqrt(users / (users - 1))
    return NormalDist().cdf(-quantile)


def _resamples(users: int, seed: int, resamples: int) -> Iterable[Array]:
    """How often each user is drawn, shape (part of resamples, users), until all resamples are done."""
    return _drawn(users, seed, resamples, _multinomial) if users > 1 else ()


def _drawn(
    users: int, seed: int, count: int, draw: Callable[[np.random.Generator, int, int], Array]
) -> Iterable[Array]:
    """Seeded draws, a block at a time; those of one block are kept, since a board asks for them again and again."""
    if users * count <= _BLOCK:
        return (_one_block(users, seed, count, draw),)
    return _blocks(users, seed, count, draw)


@lru_cache(maxsize=8)
def _one_block(users: int, seed: int, count: int, draw: Callable[[np.random.Generator, int, int], Array]) -> Array:
    return next(iter(_blocks(users, seed, count, draw)))


def _blocks(
    users: int, seed: int, count: int, draw: Callable[[np.random.Generator, int, int], Array]
) -> Iterator[Array]:
    generator = np.random.default_rng([seed, users])
    step = max(1, _BLOCK // users)
    for start in range(0, count, step):
        yield draw(generator, users, min(step, count - start))


def _multinomial(generator: np.random.Generator, users: int, count: int) -> Array:
    return generator.multinomial(users, np.full(users, 1 / users), size=count).astype(float)


def _coins(generator: np.random.Generator, users: int, count: int) -> Array:
    return generator.integers(0, 2, size=(count, users)).astype(float)
