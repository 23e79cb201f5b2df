"""Collective and personalized shift: constructed vectors whose parts are known are taken apart again."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lampbench.analysis import collective, personal, project

USERS, WIDTH = 200, 120
Array = NDArray[np.float64]


def vectors(shared: float, own: float, noise: float, seed: int = 0) -> tuple[Array, Array]:
    """Two halves: one shift for all of length ``shared``, each user's own of about ``own``, noise of about ``noise``."""
    generator = np.random.default_rng(seed)

    def random(scale: float) -> Array:
        return np.asarray(generator.standard_normal((USERS, WIDTH)) * scale / np.sqrt(WIDTH))

    base = np.eye(1, WIDTH)[0] * shared + random(own)
    return base + random(noise), base + random(noise)


def test_the_collective_part_is_recovered() -> None:
    first, second = vectors(shared=3.0, own=2.0, noise=1.0)
    found = collective((first + second) / 2)
    spread = np.sqrt(2.0**2 + 1.0**2 / 2)
    assert found.norm == pytest.approx(3.0, rel=0.03)
    assert found.spread == pytest.approx(spread, rel=0.03)
    assert found.share == pytest.approx(9 / (9 + spread**2), abs=0.02)
    # A user's vector is 3 along the mean and `spread` beside it.
    assert found.cosines[1] == pytest.approx(3 / np.hypot(3, spread), abs=0.03)
    assert found.cosines[0] < found.cosines[1] < found.cosines[2]


def test_without_a_collective_part_the_mean_explains_what_chance_does() -> None:
    found = collective(vectors(shared=0.0, own=2.0, noise=1.0)[0])
    assert found.chance == 1 / USERS
    assert found.share == pytest.approx(1 / USERS, rel=0.3)
    # The user is left out of the mean, or the cosine would be above 0.
    assert found.cosines[1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("own", "noise"), [(2.0, 1.0), (1.0, 1.0), (1.0, 3.0)])
def test_the_reliable_part_is_what_the_users_own_shift_is_of_the_residuals(own: float, noise: float) -> None:
    found = personal(*vectors(3.0, own, noise), seed=0)
    assert found is not None
    # Variance of the mean over both halves: own, and half the noise of one.
    assert found.reliable == pytest.approx(own**2 / (own**2 + noise**2 / 2), abs=0.06)
    assert found.within == pytest.approx(own**2 / (own**2 + noise**2), abs=0.06)
    assert found.between == pytest.approx(0, abs=0.02)
    assert found.p == pytest.approx(1 / 1001)


def test_noise_is_not_taken_for_a_personal_shift() -> None:
    results = [personal(*vectors(3.0, 0.0, 1.0, seed), seed=0) for seed in range(12)]
    p_values = [result.p for result in results if result]
    assert max(result.reliable for result in results if result) < 0.05
    assert max(result.identified for result in results if result) < 0.05
    # Without an effect p is uniform.
    assert 0.2 < np.mean(p_values) < 0.8


def test_users_are_told_apart_where_their_shift_is_strong() -> None:
    strong = personal(*vectors(3.0, 3.0, 1.0), seed=0)
    assert strong is not None
    assert strong.identified == 1.0


def test_users_without_a_second_half_are_left_out_and_two_are_too_few() -> None:
    first, second = vectors(3.0, 2.0, 1.0)
    second[50:] = np.nan
    kept = personal(first, second, seed=0)
    assert kept == personal(first[:50], second[:50], seed=0)
    assert kept is not None
    assert (kept.users, kept.chance) == (50, 1 / 50)
    second[2:] = np.nan
    assert personal(first, second, seed=0) is None


def test_vectors_that_are_all_zero_give_numbers() -> None:
    nothing = np.zeros((5, 7))
    assert collective(nothing).share == 0
    found = personal(nothing, nothing, seed=0)
    assert found is not None
    assert (found.within, found.p, found.reliable) == (0, 1, 0)
    assert project(nothing).shares == (0, 0)


def test_the_projection_shows_the_mean_on_its_first_axis_and_what_is_left_on_the_second() -> None:
    generator = np.random.default_rng(0)
    matrix = 0.1 * generator.standard_normal((80, 30))
    matrix[:, 3] += 4
    matrix[:, 7] += 2 * generator.standard_normal(80)
    found = project(matrix)
    assert found.points.mean(0) == pytest.approx([np.linalg.norm(matrix.mean(0)), 0], abs=1e-9)
    assert abs(np.corrcoef(found.points[:, 1], matrix[:, 7])[0, 1]) > 0.999
    assert sum(found.shares) == pytest.approx(1, abs=0.02)
