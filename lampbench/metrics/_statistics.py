"""How sure a score is, and whether two methods differ: users are what is resampled, never queries.

Queries of one user are alike; resampling them one by one would call noise a result. Everything here
is seeded, and vectorised over resamples and over methods; what is found of one method does not depend
on which others are looked at with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from statistics import NormalDist, fmean
from typing import TypeAlias

import numpy as np

from lampbench.metrics._additive import Additive, Array
from lampbench.metrics._estimate import Estimate, finite

RESAMPLES = 10_000
# How many numbers a block of resamples may hold.
_BLOCK = 4_000_000
_PART = 400_000
# Sums of many methods at once are added up in another order than alone: digits beyond these are noise.
_DIGITS = 12

# One metric of one method: an entry a seed.
Seeds: TypeAlias = Sequence[Additive]


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
    return estimate_means([[metric]], seed=seed, resamples=resamples)[0]


def estimate_means(
    groups: Sequence[Seeds], *, seed: int = 0, resamples: int = RESAMPLES
) -> list[tuple[Estimate, Estimate | None]]:
    """For each method the mean of one metric over its seeds' answers to the same queries.

    Users are resampled once for all seeds, and alike for all methods.
    """
    made = []
    for part in _parts(groups, resamples):
        drawn = [_over_queries(part, weights) for weights in _resamples(_users(part), seed, resamples)]
        values = [fmean(metric.micro for metric in group) for group in part]
        made += _estimates(values, drawn, _own(part), _users(part), seed, resamples)
    return made


def difference(first: Seeds, second: Seeds, *, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """Compare two methods' answers to the same queries: the first minus the second."""
    return differences([first], second, seed=seed, resamples=resamples)[0]


def differences(groups: Sequence[Seeds], base: Seeds, *, seed: int = 0, resamples: int = RESAMPLES) -> list[Difference]:
    """Compare several methods' answers with one method's to the same queries.

    Args:
        groups: One metric of each method; users in one order everywhere.
        base: The same of the method that is subtracted.
        seed: Of the resampling.
        resamples: Bootstrap resamples, and as many permutations.
    """
    plain, theirs = fmean(metric.micro for metric in base), _own([base])
    made = []
    for part in _parts(groups, resamples):
        weights = _resamples(_users(part), seed, resamples)
        drawn = [_over_queries(part, block) - _over_queries([base], block) for block in weights]
        values = [fmean(metric.micro for metric in group) - plain for group in part]
        own = _own(part)
        changes = None if own is None or theirs is None else own - theirs
        estimates = _estimates(values, drawn, changes, _users(part), seed, resamples)
        p_values = _permutation_p(part, base, seed, resamples)
        made += [Difference(micro, macro, p) for (micro, macro), p in zip(estimates, p_values, strict=True)]
    return made


def permutation_p(first: Seeds, second: Seeds, *, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p of the difference over queries: under the null, who answered a user is a coin flip.

    NaN where the difference is not finite.
    """
    return _permutation_p([first], second, seed, resamples)[0]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of several p-values, in their order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _parts(groups: Sequence[Seeds], resamples: int) -> Iterator[Sequence[Seeds]]:
    """Methods, so many at a time that their resamples stay in a processor's cache."""
    if not groups:
        return
    terms = groups[0][0].sums.shape[1] * max(map(len, groups))
    step = max(1, _PART // (min(resamples, _rows(_users(groups))) * terms))
    for start in range(0, len(groups), step):
        yield groups[start : start + step]


def _users(groups: Sequence[Seeds]) -> int:
    return len(groups[0][0].sums)


def _sums(groups: Sequence[Seeds]) -> tuple[Array, list[int]]:
    """Sums of all seeds, shape (users, seeds, terms), and how many seeds each method has."""
    pooled = [_pooled(group) for group in groups]
    return np.stack([metric.sums for group in pooled for metric in group], axis=1), [len(group) for group in pooled]


def _pooled(metrics: Seeds) -> Seeds:
    """Fewer metrics of the same mean, where sums can be averaged instead of values."""
    if not metrics[0].linear or len(metrics) == 1:
        return metrics
    return [replace(metrics[0], sums=np.mean([metric.sums for metric in metrics], axis=0))]


def _weighed(weights: Array, sums: Array) -> Array:
    """Weighted sums over users, shape (weights, seeds, terms)."""
    users, seeds, terms = sums.shape
    return (weights @ sums.reshape(users, seeds * terms)).reshape(-1, seeds, terms)


def _by_method(values: Array, seeds: Sequence[int]) -> Array:
    """The mean over each method's seeds, shape (weights, methods)."""
    starts = np.cumsum([0, *seeds[:-1]])
    return np.asarray(np.add.reduceat(values, starts, axis=1) / np.array(seeds))


def _over_queries(groups: Sequence[Seeds], weights: Array) -> Array:
    """The mean over seeds of each method's metric over all queries, shape (weights, methods)."""
    sums, seeds = _sums(groups)
    with np.errstate(all="ignore"):
        return _by_method(groups[0][0].value(_weighed(weights, sums)), seeds)


def _own(groups: Sequence[Seeds]) -> Array | None:
    """Each user's own values, the mean over seeds, shape (methods, users); None where they say nothing."""
    if not groups[0][0].per_user:
        return None
    with np.errstate(all="ignore"):
        return np.array([np.mean([metric.own for metric in group], axis=0) for group in groups])


def _estimates(
    values: Sequence[float], drawn: Sequence[Array], own: Array | None, users: int, seed: int, resamples: int
) -> list[tuple[Estimate, Estimate | None]]:
    """Of each method over queries, from values and resamples, and over users, from their own values."""
    micro = _intervals(values, drawn, users)
    if own is None:
        return [(estimate, None) for estimate in micro]
    with np.errstate(all="ignore"):
        means = [weights @ own.T / users for weights in _resamples(users, seed, resamples)]
        macro = _intervals([float(row.mean()) for row in own], means, users)
    return list(zip(micro, macro, strict=True))


def _intervals(values: Sequence[float], drawn: Sequence[Array], users: int) -> list[Estimate]:
    """An estimate of each value; ``drawn`` are resamples, a column a value."""
    if not drawn:
        return [Estimate(finite(value)) for value in values]
    resampled = np.concatenate(drawn)
    with np.errstate(all="ignore"):
        low, high = np.quantile(resampled, [_tail(users), 1 - _tail(users)], axis=0)
        # The plug-in variance is too small by (users - 1) / users, as the quantiles are.
        spread = resampled.std(axis=0) * math.sqrt(users / (users - 1))
    sure = np.all(np.isfinite(resampled), axis=0).tolist()
    return [
        Estimate(value, (_rounded(low[i]), _rounded(high[i])), _rounded(spread[i]))
        if math.isfinite(value) and sure[i]
        else Estimate(finite(value))
        for i, value in enumerate(values)
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _permutation_p(groups: Sequence[Seeds], base: Seeds, seed: int, resamples: int) -> list[float]:
    sums, seeds = _sums(groups)
    theirs, their_seeds = _sums([base])
    value = base[0].value
    # Seed by seed where all have as many, else every seed with every seed of the base: either way the
    # means over pairs are the methods' own means.
    count = their_seeds[0]
    partners = [list(range(count)) * len(seeds)] if set(seeds) == {count} else [[j] for j in range(count)]

    def statistic(swapped: Array) -> Array:
        kept, moved = ((_weighed(weights, sums), _weighed(weights, theirs)) for weights in (1 - swapped, swapped))
        gaps = [value(kept[0] + moved[1][:, place]) - value(kept[1][:, place] + moved[0]) for place in partners]
        return np.abs(_by_method(np.mean(gaps, axis=0), seeds))

    with np.errstate(all="ignore"):
        observed = statistic(np.zeros((1, len(sums))))[0]
        blocks = _drawn(len(sums), seed, resamples, _coins)
        extreme = sum((statistic(block) >= observed - 1e-12).sum(axis=0) for block in blocks)
    p_values = (1 + extreme) / (1 + resamples)
    return [float(p) if math.isfinite(gap) else math.nan for p, gap in zip(p_values, observed, strict=True)]


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
    if count <= _rows(users):
        return (_one_block(users, seed, count, draw),)
    return _blocks(users, seed, count, draw)


@lru_cache(maxsize=8)
def _one_block(users: int, seed: int, count: int, draw: Callable[[np.random.Generator, int, int], Array]) -> Array:
    return next(iter(_blocks(users, seed, count, draw)))


def _blocks(
    users: int, seed: int, count: int, draw: Callable[[np.random.Generator, int, int], Array]
) -> Iterator[Array]:
    generator = np.random.default_rng([seed, users])
    for start in range(0, count, _rows(users)):
        yield draw(generator, users, min(_rows(users), count - start))


def _rows(users: int) -> int:
    """How many resamples a block holds."""
    return max(1, _BLOCK // users)


def _multinomial(generator: np.random.Generator, users: int, count: int) -> Array:
    return generator.multinomial(users, np.full(users, 1 / users), size=count).astype(float)


def _coins(generator: np.random.Generator, users: int, count: int) -> Array:
    return generator.integers(0, 2, size=(count, users)).astype(float)
