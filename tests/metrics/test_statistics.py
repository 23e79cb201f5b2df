"""Intervals and tests over users, against scipy and by simulation."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from support import task

from lampbench.metrics import Additive, Estimate, Means, additive, difference, holm, score
from lampbench.metrics._statistics import _tail

LABELS = task("lamp2m").labels


def of_values(values: Sequence[Sequence[float]]) -> Additive:
    """A mean over queries, from each user's values."""
    pairs = [("1", "1") for own in values for _ in own]
    users = [str(user) for user, own in enumerate(values) for _ in own]
    template = additive(task("lamp3"), [p for p, _ in pairs], [g for _, g in pairs], users)["MAE"]
    return replace(template, sums=np.array([[sum(own), len(own)] for own in values], dtype=float))


def estimate_mean(seeds: Sequence[Additive], **options: int) -> tuple[Estimate, Estimate | None]:
    """Of one method."""
    return Means([seeds], **options).estimates()[0]


def clustered(generator: np.random.Generator, users: int, sizes: np.ndarray) -> list[list[float]]:
    """Right or wrong answers; users differ in how often they are right."""
    own = generator.beta(2, 2, size=users)
    return [list(generator.binomial(1, p, size=size).astype(float)) for p, size in zip(own, sizes, strict=True)]


def test_a_bootstrap_over_users_of_one_query_is_scipys() -> None:
    values = np.random.default_rng(1).gamma(2, size=60)
    ours, macro = estimate_mean([of_values([[v] for v in values])], resamples=20_000)
    level = 1 - 2 * _tail(60)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=level, method="percentile", rng=2
    )
    assert ours.ci95 is not None
    assert ours.ci95 == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)
    assert ours.stderr == pytest.approx(scipy.stats.sem(values), rel=0.03)
    assert macro is not None
    assert macro.ci95 == pytest.approx(ours.ci95)


def test_one_user_owning_most_queries_widens_the_interval_over_queries_only() -> None:
    others = clustered(np.random.default_rng(0), 40, np.full(40, 30))
    micro, macro = estimate_mean([of_values([[1.0] * 452, *others])])
    assert macro is not None
    assert micro.stderr is not None
    assert macro.stderr is not None
    assert micro.stderr > 1.5 * macro.stderr


@pytest.mark.parametrize("users", [12, 48, 110])
def test_intervals_cover_the_truth_as_often_as_they_say(users: int) -> None:
    """Users of uneven size who differ: 95% intervals, over queries and over users, cover 93 to 97%."""
    generator = np.random.default_rng(users)
    trials, hits = 1000, np.zeros(2)
    for _ in range(trials):
        sizes = 2 + (3 * generator.pareto(2.2, size=users)).astype(int).clip(0, 40)
        for place, estimate in enumerate(estimate_mean([of_values(clustered(generator, users, sizes))], resamples=400)):
            assert estimate is not None
            assert estimate.ci95 is not None
            hits[place] += estimate.ci95[0] <= 0.5 <= estimate.ci95[1]
    # Two standard errors of the simulation itself beside.
    slack = 2 * math.sqrt(0.95 * 0.05 / trials)
    assert ((0.93 - slack <= hits / trials) & (hits / trials <= 0.97 + slack)).all(), hits / trials


def test_intervals_of_a_difference_cover_it_and_its_test_is_honest() -> None:
    generator = np.random.default_rng(5)
    trials, covered, rejected, found = 500, 0, 0, 0
    for _ in range(trials):
        base = generator.normal(size=(40, 1)) + generator.normal(size=(40, 6))
        first, second = base + generator.normal(size=base.shape), base + generator.normal(size=base.shape)
        null = difference([of_values(first.tolist())], [of_values(second.tolist())], resamples=400)
        shifted = difference([of_values((first + 0.5).tolist())], [of_values(second.tolist())], resamples=400)
        assert shifted.micro.ci95 is not None
        covered += shifted.micro.ci95[0] <= 0.5 <= shifted.micro.ci95[1]
        rejected += null.p <= 0.05
        found += shifted.p <= 0.05
    assert 0.92 <= covered / trials <= 0.98
    assert 0.03 <= rejected / trials <= 0.075
    assert found / trials > 0.95


def test_the_permutation_test_is_scipys() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.normal(0.4, 1, size=10), generator.normal(size=10)
    ours = difference([of_values([[v] for v in first])], [of_values([[v] for v in second])], resamples=40_000)
    theirs = scipy.stats.permutation_test(
        (first, second), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", n_resamples=math.inf
    )
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.01)


def test_equal_answers_do_not_differ() -> None:
    own = of_values([[1.0, 0.0], [0.5], [0.2, 0.3, 0.9]])
    same = difference([own], [own])
    assert (same.micro.value, same.micro.ci95, same.p) == (0.0, (0.0, 0.0), 1.0)


label = st.sampled_from([*LABELS[:4], "none of them"])
answers = st.lists(st.tuples(label, st.sampled_from(LABELS[:4]), st.sampled_from("abc")), min_size=1, max_size=30)


@settings(deadline=None, max_examples=50)
@given(answers)
def test_f1_from_sums_over_users_is_scikit_learns(rows: list[tuple[str, str, str]]) -> None:
    predictions, golds, users = map(list, zip(*rows, strict=True))
    metric = additive(task("lamp2m"), predictions, golds, users)["f1"]
    expected = f1_score(golds, predictions, labels=list(LABELS), average="macro", zero_division=0)
    assert metric.micro == pytest.approx(expected, abs=1e-12)
    assert score(task("lamp2m"), predictions, golds, users)["f1"].macro is None


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=2, max_size=12))
def test_intervals_hold_the_value_between_the_users_extremes(values: list[list[float]]) -> None:
    micro, macro = estimate_mean([of_values(values)], resamples=200)
    flat = [v for own in values for v in own]
    assert micro.value == pytest.approx(np.mean(flat))
    for estimate in (micro, macro):
        assert estimate is not None
        assert estimate.ci95 is not None
        assert min(flat) - 1e-9 <= estimate.ci95[0] <= estimate.ci95[1] <= max(flat) + 1e-9


def test_seeds_are_pooled_by_their_mean_and_users_drawn_once() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(size=(3, 30, 4))
    pooled, _ = estimate_mean([of_values(v.tolist()) for v in values])
    mean, _ = estimate_mean([of_values(values.mean(axis=0).tolist())])
    assert pooled.value == pytest.approx(mean.value)
    assert pooled.ci95 == pytest.approx(mean.ci95)
    against = difference([of_values(v.tolist()) for v in values], [of_values((values[0] - 1).tolist())])
    assert against.micro.value == pytest.approx(values.mean() - values[0].mean() + 1)


def test_seeds_of_a_metric_that_is_not_a_mean_are_averaged_value_by_value() -> None:
    answers = [["1", "3", "5", "2"], ["2", "5", "5", "1"]]
    golds, users = ["1", "4", "2", "2"], ["a", "a", "b", "c"]
    seeds = [additive(task("lamp3"), own, golds, users)["RMSE"] for own in answers]
    pooled, _ = estimate_mean(seeds)
    assert pooled.value == pytest.approx(np.mean([seed.micro for seed in seeds]))


def test_the_same_seed_gives_the_same_interval_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    own = of_values(np.random.default_rng(0).normal(size=(20, 3)).tolist())
    first = estimate_mean([own], resamples=300)
    assert estimate_mean([own], resamples=300) == first
    assert estimate_mean([own], resamples=300, seed=1) != first


@pytest.mark.parametrize("name", ["lamp2m", "lamp3", "lamp5"])
def test_what_is_found_of_a_method_does_not_depend_on_its_company(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    golds = list(generator.choice(list(task(name).labels or ["a b", "b c d", "a d"]), size=60))
    users = [str(user) for user in generator.integers(0, 9, size=60)]
    methods = [
        [additive(task(name), list(generator.permutation(golds)), golds, users) for _ in range(seeds)]
        for seeds in (1, 3, 2, 1)
    ]
    for key in (metric.key for metric in task(name).metrics):
        groups = [[seed[key] for seed in method] for method in methods]
        alone = (
            [estimate_mean(group, resamples=300) for group in groups],
            [difference(group, groups[1], resamples=300) for group in groups if group is not groups[1]],
        )
        together = Means(groups, resamples=300)
        assert (together.estimates(), together.differences(1)) == alone
        # The same in many small blocks of resamples that are not kept, a method at a time.
        with monkeypatch.context() as patch:
            for constant, few in {"_KEPT": 0, "_ROWS": 70, "_PART": 1, "_TILE": 14}.items():
                patch.setattr(f"lampbench.metrics._statistics.{constant}", few)
            blocks = Means(groups, resamples=300)
            assert (blocks.estimates(), blocks.differences(1)) == alone


def test_a_method_alone_differs_from_none() -> None:
    assert Means([[of_values([[1.0], [0.0]])]]).differences(0) == []


def test_one_user_has_no_interval() -> None:
    micro, macro = estimate_mean([of_values([[0.0, 1.0]])])
    assert macro is not None
    assert (micro.value, micro.ci95, micro.stderr, macro.ci95) == (0.5, None, None, None)


def test_what_could_not_be_tested_does_not_count_for_holm_and_disturbs_no_other() -> None:
    adjusted = holm([math.nan, 0.04, 0.01, math.nan, 0.03])
    assert math.isnan(adjusted[0])
    assert math.isnan(adjusted[3])
    assert [adjusted[place] for place in (1, 2, 4)] == pytest.approx(holm([0.04, 0.01, 0.03])) == [0.06, 0.03, 0.06]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    ordered = sorted(p_values)
    for p, own in zip(p_values, adjusted, strict=True):
        steps = [min(1.0, (len(ordered) - i) * q) for i, q in enumerate(ordered) if q <= p]
        # The first place of equal values counts.
        assert own == pytest.approx(max(steps))
        assert own >= p
    rejected = [p for p, own in zip(p_values, adjusted, strict=True) if own <= 0.05]
    assert all(p <= 0.05 for p in rejected)
