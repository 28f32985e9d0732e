"""Ratios of means with their intervals, and the price of a mask in a linear model."""

import numpy as np
import pytest
from scipy import special

from lth_jax.measures.transfer import excess_risk, fieller


def test_the_ends_are_where_students_test_turns():
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 1, 20), rng.normal(5, 1, 20)
    found = fieller(a, b)
    assert found.estimate == pytest.approx(a.mean() / b.mean())
    assert found.low < found.estimate < found.high
    limit = special.stdtrit(19, 0.975)
    for end in (found.low, found.high):
        rest = a - end * b
        t = rest.mean() / (rest.std(ddof=1) / np.sqrt(20))
        assert abs(t) == pytest.approx(limit)


def test_coverage_agrees_with_its_definition():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        shared = rng.normal(size=16)
        found = fieller(1 + shared + rng.normal(size=16), 4 + shared + rng.normal(size=16))
        hits += found.low <= 0.25 <= found.high
    assert hits / 1000 == pytest.approx(0.95, abs=0.02)


def test_without_a_denominator_there_is_no_bound():
    found = fieller([1.0, 2.0, 3.0, 2.5], [1.0, -1.0, 0.5, -0.4])
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_what_is_not_finite_is_left_out():
    found = fieller([1.0, np.nan, 2.0, 3.0], [2.0, 1.0, np.inf, 2.1])
    assert (found.replicates, found.missing) == (2, 2)
    alone = fieller([1.0, np.nan], [2.0, 1.0])
    assert alone.estimate == 0.5 and np.isnan(alone.low)
    with pytest.raises(ValueError, match="`numerators` and `denominators`"):
        fieller([1.0], [1.0, 2.0])


def test_a_plain_mask_costs_a_residual_model_its_empty_diagonal():
    rng = np.random.default_rng(2)
    plain = rng.normal(size=(10, 10)) * (rng.random((10, 10)) < 0.3)
    np.fill_diagonal(plain, 0)
    residual = plain - np.eye(10)
    assert excess_risk(residual, plain != 0) == pytest.approx(10)
    assert excess_risk(residual, residual != 0) == 0
    x = rng.normal(size=(4000, 10))  # the best weights on the support, from data
    errors = 0.0
    for row in range(10):
        kept = plain[row] != 0
        target = x @ residual[row]
        fitted = np.linalg.lstsq(x[:, kept], target, rcond=None)[0] if kept.any() else 0
        errors += np.mean((target - x[:, kept] @ fitted) ** 2) if kept.any() else np.mean(target**2)
    assert errors == pytest.approx(10, rel=0.05)
    with pytest.raises(ValueError, match="`mask` has shape"):
        excess_risk(plain, plain[0] != 0)


def test_a_share_of_nothing_is_no_number():
    found = fieller([0.0, 0.0, 1.0], [0.0, 0.0, 0.0])
    assert np.isnan(found.estimate) and (found.low, found.high) == (-np.inf, np.inf)
    assert np.isnan(fieller([1.0], [0.0]).estimate)
