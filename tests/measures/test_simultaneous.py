"""Simultaneous intervals: exact cases, a plain loop, and coverage by simulation."""

import numpy as np
import pytest

from lth_jax.measures.coverage import required
from lth_jax.measures.simultaneous import HALVINGS, band_coverage, calibrated, simultaneous


def looped(values, draws, tail):
    """The ends of all intervals from given resamples, in a plain loop."""
    mean, seeds = values.mean(axis=0), len(values)
    above, below = [], []
    for places in draws:
        drawn = values[places]
        t = (drawn.mean(axis=0) - mean) / (drawn.std(axis=0, ddof=1) / np.sqrt(seeds))
        above.append(t.max())
        below.append((-t).max())
    error = values.std(axis=0, ddof=1) / np.sqrt(seeds)
    q1, q2 = (np.quantile(each, 1 - tail, method="higher") for each in (above, below))
    return mean - q1 * error, mean + q2 * error


def test_blocks_of_resamples_agree_with_a_plain_loop(monkeypatch):
    values = np.random.default_rng(2).exponential(size=(20, 5)) * [1, 10, 0.1, 1, 3] + 100
    monkeypatch.setattr("lth_jax.measures.simultaneous.BLOCK", 2000)
    found = simultaneous(values, rng=np.random.default_rng(3), resamples=299)
    rng = np.random.default_rng(3)
    draws = np.concatenate([rng.integers(0, 20, (size, 20)) for size in (100, 100, 99)])
    low, high = looped(values, draws, 0.025)
    assert [one.low for one in found] == pytest.approx(low)
    assert [one.high for one in found] == pytest.approx(high)


def cells_of(kind, seeds, cells, rng):
    """Correlated cells of mean 0."""
    if kind == "normal":
        return rng.normal(size=(seeds, cells)) + rng.normal(size=(seeds, 1))
    return rng.exponential(size=(seeds, cells)) + rng.exponential(size=(seeds, 1)) - 2


@pytest.mark.slow
@pytest.mark.parametrize("cells", [6, 48])
@pytest.mark.parametrize("seeds", [24, 48])
@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_all_cells_are_covered_at_once(kind, seeds, cells):
    rng, runs = np.random.default_rng(1), 400
    hits = 0
    for _ in range(runs):
        values = cells_of(kind, seeds, cells, rng)
        found = simultaneous(values, rng=rng, resamples=399)
        hits += all(one.low <= 0 <= one.high for one in found)
    assert 0.93 <= hits / runs < 1


def test_cells_without_spread_and_few_seeds():
    flat = simultaneous(np.tile([1.0, 2.0], (5, 1)), rng=np.random.default_rng(0))
    assert [(one.low, one.high) for one in flat] == [(1, 1), (2, 2)]
    rare = np.array([[0.0, 0.1], [0.0, 0.2], [0.0, 0.3], [1.0, 0.4]])
    both = simultaneous(rare, rng=np.random.default_rng(0))
    assert np.isinf([one.high for one in both]).all()  # a third of the resamples miss the 1
    few = simultaneous([[1.0, 2.0], [3.0, 4.0], [np.nan, 1.0]], rng=np.random.default_rng(0))
    assert np.isnan(few[0].low) and few[0][3:] == (2, 1) and few[0].estimate == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": [1.0]}, "two-dimensional, got shape \\(1,\\)"),
        ({"confidence": 1.0}, "`confidence` must be in \\(0, 1\\), got 1.0"),
        ({"resamples": 100, "confidence": 0.9975}, "`resamples` must be at least 801"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    given = {"values": np.ones((4, 2)), "rng": np.random.default_rng(0), **options}
    with pytest.raises(ValueError, match=message):
        simultaneous(given.pop("values"), **given)


def test_bands_of_values_with_failures_widen_until_they_cover():
    rng = np.random.default_rng(5)
    values = rng.normal(1, 1, size=(24, 3))
    values[:3, 0] -= 40
    assert band_coverage(values, 0.95, simulations=200) < required(0.95)
    found = calibrated(values, rng=rng, simulations=200)
    assert found.nominal > 0.95 and found.coverage >= required(0.95)
    plain = simultaneous(values, rng=rng)
    assert all(one.low < other.low for one, other in zip(found.intervals, plain, strict=True))


def test_normal_values_keep_their_nominal_confidence():
    values = cells_of("normal", 24, 4, np.random.default_rng(6))
    found = calibrated(values, rng=np.random.default_rng(7), simulations=200)
    assert found.nominal == 0.95 and 0.93 <= found.coverage < 1
    assert found.intervals == simultaneous(values, rng=np.random.default_rng(7))


def test_one_failure_cannot_be_covered_and_few_seeds_have_no_coverage():
    values = np.random.default_rng(8).normal(size=(24, 2))
    values[0, 0] -= 1000
    found = calibrated(values, rng=np.random.default_rng(0), simulations=50)
    assert found.nominal == pytest.approx(1 - 0.05 / 2**HALVINGS) and found.coverage < 0.8
    assert np.isnan(calibrated([[1.0, 2.0]] * 2, rng=np.random.default_rng(0)).coverage)
