"""Chances of lotteries against exact values."""

import math
from fractions import Fraction

import numpy as np
import pytest

from lth_jax.measures import odds


@pytest.mark.parametrize(("n", "k"), [(1, 0), (12, 6), (60, 25), (300, 3)])
def test_counts_of_masks_are_binomial_coefficients(n, k):
    assert odds.log10_choose(n, k) == pytest.approx(math.log10(math.comb(n, k)), abs=1e-10)


@pytest.mark.parametrize(("n", "k", "s"), [(10, 5, 2), (100, 20, 20), (1000, 100, 7)])
def test_the_probability_of_keeping_a_subnetwork_agrees_with_counting(n, k, s):
    exact = Fraction(math.comb(n - s, k - s), math.comb(n, k))
    assert odds.log10_kept(n, k, s) == pytest.approx(math.log10(exact), abs=1e-9)


def test_few_given_weights_are_kept_almost_independently():
    assert odds.log10_kept(266_200, 26_620, 10) == pytest.approx(-10, abs=1e-2)


def test_at_least_one_is_exact_for_tiny_chances():
    assert odds.at_least_one(1e-20, 1e18) == pytest.approx(0.01, rel=1e-2)
    assert odds.at_least_one([0.5, 1.0, 0.0], [2, 1, 9]).tolist() == [0.75, 1.0, 0.0]
    assert odds.at_least_one(1.0, 0) == 0.0


def test_biology_by_its_exact_values():
    assert odds.clones_survive(1000, 0.0) == pytest.approx(0.001)
    assert odds.varied_survive(1000, 500) == pytest.approx(1 - 0.999**500)


def test_families_survive_as_often_as_when_simulated():
    rng = np.random.default_rng(0)
    wanted, offspring = rng.integers(10, size=40_000), rng.integers(10, size=(40_000, 5))
    lived = (offspring == wanted[:, None]).any(axis=1).mean()
    assert lived == pytest.approx(odds.varied_survive(10, 5).item(), abs=0.01)  # 4 standard errors


def test_subset_sums_look_at_all_subsets():
    values, target = np.random.default_rng(1).uniform(-1, 1, 6), 0.3
    brute = [
        min(
            abs(sum(v for j, v in enumerate(values[: n + 1]) if bits >> j & 1) - target)
            for bits in range(2 ** (n + 1))
        )
        for n in range(6)
    ]
    assert odds.subset_sum_gaps(values, target) == pytest.approx(brute)


def test_ten_uniform_numbers_come_within_a_hundredth_nine_times_in_ten():
    rng = np.random.default_rng(2)
    gaps = [
        odds.subset_sum_gaps(rng.uniform(-1, 1, 10), rng.uniform(-0.5, 0.5))[-1]
        for _ in range(2000)
    ]
    assert np.mean(np.array(gaps) <= 0.01) == pytest.approx(0.94, abs=0.02)


def test_half_the_error_takes_about_one_number_more():
    rng = np.random.default_rng(3)
    gaps = np.array(
        [odds.subset_sum_gaps(rng.uniform(-1, 1, 14), rng.uniform(-0.5, 0.5)) for _ in range(300)]
    )
    needed = [np.mean((gaps > error).sum(axis=1)) for error in (0.1, 0.01)]
    assert (needed[1] - needed[0]) / math.log2(10) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: odds.log10_choose(3, 4), "`k`"),
        (lambda: odds.log10_kept(9, 4, 5), "`s`"),
        (lambda: odds.at_least_one(1.5, 2), "`p`"),
        (lambda: odds.subset_sum_gaps(np.zeros(30), 0.0), "`values`"),
    ],
)
def test_what_cannot_be_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
