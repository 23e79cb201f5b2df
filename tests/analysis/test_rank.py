"""Effective rank: what is known of a matrix is found, and the null says when a low rank shows nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from lampbench.analysis import centred, effective_rank, rank_result, resampled_squares, squares

SHAPES = [pytest.param(30, 80, id="fewer-users"), pytest.param(80, 30, id="fewer-dimensions")]


def low_rank(users: int, width: int, rank: int, seed: int = 0) -> NDArray[np.float64]:
    """Vectors in ``rank`` directions of about equal weight."""
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.standard_normal((width, rank)))[0]
    return np.asarray(generator.standard_normal((users, rank)) @ basis.T)


@pytest.mark.parametrize(("share", "rank"), [(0.6, 1), (0.61, 2), (0.8, 2), (0.9, 3), (0.95, 4), (1.0, 4)])
def test_the_rank_is_the_smallest_that_reaches_the_share(share: float, rank: int) -> None:
    assert effective_rank(np.array([6.0, 2.0, 1.0, 1.0, 0.0]), share) == rank


def test_nothing_has_no_rank() -> None:
    assert effective_rank(np.zeros(5), 0.9) == 0
    result = rank_result(np.zeros((4, 6)), centre=True, draws=20, seed=0)
    assert [at.rank for at in result.ranks] == [0, 0, 0]


@pytest.mark.parametrize(("users", "width"), SHAPES)
@pytest.mark.parametrize("centre", [False, True])
def test_the_spectrum_is_that_of_the_singular_value_decomposition(users: int, width: int, centre: bool) -> None:
    matrix = np.random.default_rng(1).standard_normal((users, width)) + 2.0
    rows = centred(matrix) if centre else matrix
    oracle = np.linalg.svd(rows, compute_uv=False) ** 2
    assert np.allclose(squares(rows), oracle, rtol=1e-9, atol=1e-9)
    result = rank_result(matrix, centre=centre, draws=20, seed=0)
    for at in result.ranks:
        # Written another way: what is left after r directions.
        left = 1 - np.cumsum(oracle) / oracle.sum()
        assert at.rank == 1 + int(np.argmax(left <= 1 - at.share + 1e-12))


def test_centred_ranks_are_those_of_principal_components() -> None:
    matrix = np.random.default_rng(2).standard_normal((60, 25)) * np.geomspace(1, 30, 25) + 5
    shares = np.cumsum(PCA().fit(matrix).explained_variance_ratio_)
    result = rank_result(matrix, centre=True, draws=20, seed=0)
    assert [at.rank for at in result.ranks] == [1 + int((shares < at.share).sum()) for at in result.ranks]


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_known_rank_is_recovered_and_random_vectors_need_many_more(rank: int) -> None:
    noise = 1e-3 * np.random.default_rng(9).standard_normal((60, 200))
    result = rank_result(low_rank(60, 200, rank) + noise, centre=False, draws=50, seed=0)
    assert result.ranks[-1].rank == rank
    assert result.ranks[-1].null > 3 * rank
    assert result.ranks[-1].per_mille == pytest.approx(1000 * rank / 60)


def test_the_null_of_equal_norms_is_nearly_of_full_rank() -> None:
    unit = low_rank(40, 400, 2)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    result = rank_result(unit, centre=False, draws=20, seed=0)
    # Of 40 nearly orthogonal vectors of one length, 95% of the variance needs nearly 38.
    assert result.ranks[2].null > 34


def test_the_null_is_centred_where_the_vectors_are() -> None:
    # Four nearly orthogonal vectors of one length need four directions, and three once their mean is off.
    unit = np.eye(4, 300)
    raw, rest = (rank_result(unit, centre=centre, draws=20, seed=0).ranks[2] for centre in (False, True))
    assert (raw.rank, raw.null) == (4, 4)
    assert (rest.rank, rest.null) == (3, 3)


def test_a_rank_that_is_low_because_one_user_is_huge_is_the_nulls_too() -> None:
    matrix = np.random.default_rng(3).standard_normal((40, 100))
    matrix[0] *= 100
    result = rank_result(matrix, centre=False, draws=50, seed=0)
    assert [(at.rank, at.null) for at in result.ranks] == [(1, 1.0)] * 3


def test_a_mean_that_dominates_is_seen_without_centring_only() -> None:
    matrix = low_rank(50, 100, 5) + 20 * np.ones(100)
    raw, rest = (rank_result(matrix, centre=centre, draws=20, seed=0).ranks[-1].rank for centre in (False, True))
    assert (raw, rest) == (1, 5)


@pytest.mark.parametrize(("users", "width"), SHAPES)
@pytest.mark.parametrize("centre", [False, True])
def test_a_resample_is_the_spectrum_of_the_users_it_drew(users: int, width: int, centre: bool) -> None:
    matrix = np.random.default_rng(4).standard_normal((users, width)) + 1
    found = resampled_squares(matrix, centre, 3, np.random.default_rng(7))
    generator = np.random.default_rng(7)
    for draw in range(3):
        drawn = np.repeat(matrix, generator.multinomial(users, np.full(users, 1 / users)), axis=0)
        oracle = np.linalg.svd(centred(drawn) if centre else drawn, compute_uv=False) ** 2
        assert np.allclose(found[draw], oracle, atol=1e-8 * oracle[0])


def test_intervals_hold_the_rank_and_mostly_that_of_other_samples_of_the_same_population() -> None:
    scales = np.geomspace(1, 0.05, 20)

    def sample(seed: int) -> NDArray[np.float64]:
        return np.random.default_rng(seed).standard_normal((40, 20)) * scales

    typical = np.median([effective_rank(squares(sample(seed)), 0.95) for seed in range(1000, 1200)])
    covered = 0
    for seed in range(40):
        at = rank_result(sample(seed), centre=False, draws=200, seed=seed).ranks[-1]
        assert at.interval[0] <= at.rank <= at.interval[1]
        covered += at.interval[0] <= typical <= at.interval[1]
    assert covered >= 38


def test_the_same_seed_gives_the_same_numbers_and_the_scale_does_not_matter() -> None:
    matrix = np.random.default_rng(5).standard_normal((25, 12))
    first, again, scaled = (rank_result(part, centre=True, draws=50, seed=3) for part in (matrix, matrix, 8 * matrix))
    assert first == again == scaled
