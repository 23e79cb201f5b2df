"""The smallest difference that users and queries could show, against what theory says of many of them."""

from statistics import NormalDist

import numpy as np
import pytest

from lampbench.metrics import smallest_difference


@pytest.mark.parametrize(("users", "queries"), [(60, 1), (40, 3)])
def test_for_many_users_it_is_that_of_the_normal_distribution(users: int, queries: int) -> None:
    spread = 0.2
    # Quantiles rather than draws: the spread is exactly known.
    differences = np.array([NormalDist(0, spread).inv_cdf((rank + 0.5) / users) for rank in range(users)])
    error = np.sqrt((differences**2).mean() / users)
    expected = (NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)) * error
    found = smallest_difference(differences, np.full(users, float(queries)))
    assert found == pytest.approx(expected, rel=0.12)


def test_five_users_can_show_nothing() -> None:
    # Of 32 flips of five signs, the two most extreme are 6% of all.
    assert smallest_difference(np.array([0.1, -0.2, 0.3, 0.1, -0.1]), np.ones(5)) is None


def test_users_without_any_difference_tell_nothing() -> None:
    assert smallest_difference(np.zeros(10), np.ones(10)) is None
