"""How certain a score is, and whether two methods differ. Users are resampled, never queries.

Queries of one user are alike; resampling them one by one would take noise for a result. Everything here
is seeded, and vectorized over resamples and over methods; what is found for one method does not depend
on which others are looked at with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from statistics import NormalDist, fmean
from typing import TypeAlias

import numpy as np

from lampbench.metrics._additive import Additive, Array
from lampbench.metrics._scores import Estimate, finite

RESAMPLES = 10_000
# How many drawn numbers are kept for the next board.
_KEPT = 4_000_000
# Resamples at a time, and numbers computed of them at a time: so few stay in a processor's cache, and their
# memory is used again; giving more back to the system each time would cost more than the computing.
_ROWS = 2000
_PART = 80_000
# Resamples of one matrix product: larger ones are shared among threads, which wait for each other, on a busy
# machine a hundred times longer than the product takes.
_TILE = 16
# Sums of many methods at once are added up in another order than alone: digits beyond these are noise.
_DIGITS = 12

# One metric of one method: one entry per seed.
Seeds: TypeAlias = Sequence[Additive]
# Sums of some methods, shape (terms, seeds of all, users), and how many seeds each has.
_Part: TypeAlias = tuple[Array, list[int]]
_Draw: TypeAlias = Callable[[np.random.Generator, int, int], Array]


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two methods on the same queries, the second subtracted from the first.

    Attributes:
        micro: Over all queries.
        macro: The mean over users; or None if a user's own value is not meaningful.
        p: Two-sided permutation test of ``micro``: under the null, which of the two answered a user
            is a coin flip.
    """

    micro: Estimate
    macro: Estimate | None
    p: float


def estimate(metric: Additive, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Estimate, Estimate | None]:
    """The metric over queries and over users, each with an interval from a bootstrap over users."""
    return Means([[metric]], seed=seed, resamples=resamples).estimates()[0]


def difference(first: Seeds, second: Seeds, *, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """Compare two methods' answers to the same queries: the first minus the second."""
    return Means([first, second], seed=seed, resamples=resamples).differences(1)[0]


class Means:
    """One metric of several methods on the same queries: each method's mean over its seeds.

    Users are resampled once for all seeds, and alike for all methods.

    Args:
        groups: The metric of each method; users in one order everywhere.
        seed: Of the resampling.
        resamples: Bootstrap resamples, and as many permutations.

    Attributes:
        values: Of each method, over all queries.
    """

    def __init__(self, groups: Sequence[Seeds], *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        metric = groups[0][0]
        self._value, self._users = metric.value, len(metric.sums)
        self._seed, self._resamples = seed, resamples
        runs = np.stack([run.sums for group in groups for run in group])
        starts = np.cumsum([len(group) for group in groups])[:-1]
        with np.errstate(all="ignore"):
            self._sums = [_pooled(own, metric.linear) for own in np.split(runs, starts)]
            values, own = metric.value(runs.sum(axis=1)), metric.value(runs) if metric.per_user else None
            self._own = None if own is None else np.array([each.mean(axis=0) for each in np.split(own, starts)])
        self.values = [fmean(each.tolist()) for each in np.split(values, starts)]

    def estimates(self) -> list[tuple[Estimate, Estimate | None]]:
        """Of each method over queries and over users, with intervals from a bootstrap over users."""
        return self._estimates(self.values, self._drawn, self._own)

    def differences(self, base: int) -> list[Difference]:
        """Every other method minus the one at place ``base``."""
        others = [place for place in range(len(self.values)) if place != base]
        if not others:
            return []
        values = [self.values[place] - self.values[base] for place in others]
        drawn = self._drawn[:, others] - self._drawn[:, [base]]
        own = None if self._own is None else self._own[others] - self._own[base]
        pairs = zip(self._estimates(values, drawn, own), self.p_values(others, base), strict=True)
        return [Difference(micro, macro, p) for (micro, macro), p in pairs]

    def contributions(self, places: Sequence[int]) -> Array:
        """What each user adds to each of these methods' values, shape (methods, users).

        It is what the metric changes by if this user alone, of the mean of these methods' answers, is answered by the
        method. For means over queries the sum over users is the method's value, but for a constant; for other metrics
        it is so to first order. Who answered a user stays a coin flip under the null, whatever the metric.
        """
        with np.errstate(all="ignore"):
            pooled = np.mean([self._sums[place].mean(axis=1) for place in places], axis=0)
            rest = pooled.sum(axis=1, keepdims=True) - pooled
            changed = (rest[:, None] + self._sums[place] for place in places)
            whole = self._value(pooled.sum(axis=1))
            return np.array([self._value(np.moveaxis(own, 0, -1)).mean(axis=0) - whole for own in changed])

    def p_values(self, places: Sequence[int], base: int) -> list[float]:
        """Two-sided p over queries of methods against one: under the null, who answered a user is a coin flip.

        NaN if the difference is not finite.
        """
        parts = list(self._parts([self._sums[place] for place in places]))
        with np.errstate(all="ignore"):
            observed = self._gaps(parts, self._sums[base], np.zeros((1, self._users, 1)))
            blocks = _drawn(self._users, self._seed, self._resamples, _coins)
            gaps = (self._gaps(parts, self._sums[base], swapped) for swapped in blocks)
            extreme = sum((gap >= observed - 1e-12).sum(axis=(0, 2)) for gap in gaps)
        p_values = (1 + extreme) / (1 + self._resamples)
        return [float(p) if math.isfinite(gap) else math.nan for p, gap in zip(p_values, observed.flat, strict=True)]

    @cached_property
    def _drawn(self) -> Array:
        return self._resampled(self._sums, self._value)

    def _estimates(
        self, values: Sequence[float], drawn: Array, own: Array | None
    ) -> list[tuple[Estimate, Estimate | None]]:
        """From values and resamples over queries, and from users' own values."""
        micro = _intervals(values, drawn, self._users)
        if own is None:
            return [(estimate, None) for estimate in micro]
        with np.errstate(all="ignore"):
            means = self._resampled(list(own[:, None, None]), lambda sums: sums[..., 0]) / self._users
            macro = _intervals([float(row.mean()) for row in own], means, self._users)
        return list(zip(micro, macro, strict=True))

    def _resampled(self, sums: Sequence[Array], value: Callable[[Array], Array]) -> Array:
        """Values of resampled sums, shape (resamples, methods); one user gives none."""
        parts = list(self._parts(sums))
        made = [np.empty((0, len(sums)))]
        with np.errstate(all="ignore"):
            for weights in _drawn(self._users, self._seed, self._resamples, _multinomial) if self._users > 1 else ():
                values = [_by_method(_of_terms(value, _weighed(weights, own)), seeds) for own, seeds in parts]
                made.append(np.concatenate(values, axis=1).transpose(0, 2, 1).reshape(-1, len(sums)))
        return np.concatenate(made)

    def _gaps(self, parts: Sequence[_Part], base: Array, swapped: Array) -> Array:
        """How far from the base if answers of ``swapped`` users change sides, shape (tiles, methods, resamples)."""
        base_kept, base_moved = (_weighed(weights, base)[:, :, None] for weights in (1 - swapped, swapped))
        (terms, count, _), (tiles, _, rows) = base.shape, swapped.shape
        made = []
        for sums, seeds in parts:
            # Seed by seed where all have as many, else every seed with every seed of the base: either way the
            # means over pairs are the methods' own means.
            alike = set(seeds) == {count}
            shape = (tiles, terms, -1, count if alike else 1, rows)
            kept, moved = (_weighed(weights, sums).reshape(shape) for weights in (1 - swapped, swapped))
            gaps = _of_terms(self._value, kept + base_moved) - _of_terms(self._value, base_kept + moved)
            made.append(np.abs(gaps.mean(axis=2) if alike else _by_method(gaps.mean(axis=2), seeds)))
        return np.concatenate(made, axis=1)

    def _parts(self, sums: Sequence[Array]) -> Iterator[_Part]:
        """Methods' sums, so many at a time that a block of their resamples is small."""
        largest = max((own[..., 0].size for own in sums), default=1)
        step = max(1, _PART // (largest * min(self._resamples, _ROWS)))
        for start in range(0, len(sums), step):
            part = sums[start : start + step]
            yield np.concatenate(part, axis=1), [own.shape[1] for own in part]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of several p-values, in their order; NaN, of what could not be tested, stays NaN."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__)
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _pooled(sums: Array, linear: bool) -> Array:
    """A method's sums, shape (terms, seeds, users): of one seed, where sums can be averaged instead of values."""
    return np.ascontiguousarray((sums.mean(axis=0, keepdims=True) if linear else sums).transpose(2, 0, 1))


def _weighed(weights: Array, sums: Array) -> Array:
    """Weighted sums over users, shape (tiles, terms, seeds, resamples)."""
    terms, seeds, users = sums.shape
    return (sums.reshape(terms * seeds, users) @ weights).reshape(len(weights), terms, seeds, weights.shape[2])


def _of_terms(value: Callable[[Array], Array], sums: Array) -> Array:
    """The value of weighted sums: it takes terms last, which are faster first, in front of long rows of resamples."""
    return value(np.moveaxis(sums, 1, -1))


def _by_method(values: Array, seeds: Sequence[int]) -> Array:
    """The mean over each method's seeds, shape (tiles, methods, resamples)."""
    if max(seeds) == 1:
        return values
    starts = np.cumsum([0, *seeds[:-1]])
    return np.asarray(np.add.reduceat(values, starts, axis=1) / np.array(seeds)[:, None])


def _intervals(values: Sequence[float], resampled: Array, users: int) -> list[Estimate]:
    """An estimate of each value from its resamples, one column per value; a single user gives none."""
    if not len(resampled):
        return [Estimate(finite(value)) for value in values]
    with np.errstate(all="ignore"):
        low, high = np.quantile(resampled, [_tail(users), 1 - _tail(users)], axis=0)
        # The plug-in variance is too small by (users - 1) / users, as the quantiles are.
        spread = resampled.std(axis=0) * math.sqrt(users / (users - 1))
    return [
        Estimate(value, (_rounded(low[i]), _rounded(high[i])), _rounded(spread[i]))
        if math.isfinite(value) and math.isfinite(spread[i])
        else Estimate(finite(value))
        for i, value in enumerate(values)
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


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


def _drawn(users: int, seed: int, count: int, draw: _Draw) -> Iterable[Array]:
    """Seeded draws, shape (tiles, users, resamples of a tile), until all are done.

    Few are kept, since a board asks for them again and again.
    """
    return _kept(users, seed, count, draw) if users * count <= _KEPT else _blocks(users, seed, count, draw)


@lru_cache(maxsize=8)
def _kept(users: int, seed: int, count: int, draw: _Draw) -> tuple[Array, ...]:
    return tuple(_blocks(users, seed, count, draw))


def _blocks(users: int, seed: int, count: int, draw: _Draw) -> Iterator[Array]:
    generator = np.random.default_rng([seed, users])
    for start in range(0, count, _ROWS):
        rows = min(_ROWS, count - start)
        tiles = draw(generator, users, rows).reshape(-1, math.gcd(rows, _TILE), users)
        yield np.ascontiguousarray(tiles.transpose(0, 2, 1))


def _multinomial(generator: np.random.Generator, users: int, count: int) -> Array:
    """How often each user is drawn."""
    return generator.multinomial(users, np.full(users, 1 / users), size=count).astype(float)


def _coins(generator: np.random.Generator, users: int, count: int) -> Array:
    return generator.integers(0, 2, size=(count, users)).astype(float)
