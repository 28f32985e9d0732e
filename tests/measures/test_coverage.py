"""Intervals cover what they promise on skewed values, or the next method is taken."""

import numpy as np
import pytest
from scipy import optimize, stats

from lth_jax.measures import coverage as cv
from lth_jax.measures.intervals import sign_flip_interval

RNG = np.random.default_rng


def failures(rng, share, n):
    """Gains of about a point, and losses of about 40 where a seed fails."""
    return np.where(rng.random(n) < share, rng.normal(-40, 10, n), rng.normal(1, 1, n))


def seen(failed, n=48):
    """Values of which a given number failed."""
    rng = RNG(1)
    return np.append(rng.normal(-40, 10, failed), rng.normal(1, 1, n - failed))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("name", cv.METHODS)
def test_the_simulated_test_accepts_exactly_the_means_in_the_interval(name, confidence):
    rng, method = RNG(0), cv.METHODS[name]
    away = rng.exponential(size=(80, 10)) - 1
    ends = [method.interval(row, confidence, rng)[1:3] for row in away]
    expected = [low <= 0 <= high for low, high in ends]
    assert method.covers(away, confidence, rng).tolist() == expected
    assert 0.5 < np.mean(expected) < 0.98


def test_drawn_signs_cover_as_the_interval_with_many_more_does():
    values = seen(5)
    rng = RNG(3)
    drawn = rng.choice(values, size=(150, values.size))
    ends = [sign_flip_interval(row, rng=rng, resamples=1999)[1:3] for row in drawn]
    share = np.mean([low <= values.mean() <= high for low, high in ends])
    found = cv.coverage(values, cv.SIGN_FLIP, simulations=4000)
    assert found == pytest.approx(share, abs=3.5 * np.sqrt(0.1 * 0.9 / 150))


def test_the_likelihood_interval_ends_where_the_ratio_has_its_limit():
    x = RNG(4).exponential(size=12)
    _, low, high, *_ = cv.likelihood_interval(x, 0.95)

    def ratio(mean):
        z = x - mean
        ends = (-1 / z.max() + 1e-9, -1 / z.min() - 1e-9)
        found = optimize.brentq(lambda k: (z / (1 + k * z)).sum(), *ends)
        return 2 * np.log1p(found * z).sum()

    assert [ratio(low), ratio(high)] == pytest.approx([stats.f.ppf(0.95, 1, 11)] * 2, rel=1e-4)


def test_the_transformed_interval_is_students_for_symmetric_values():
    x = np.arange(11.0)
    expected = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert cv.transformed_t(x, 0.95)[1:3] == pytest.approx(tuple(expected))


def test_normal_values_keep_the_sign_flip_interval():
    values = np.append(RNG(5).normal(size=48), np.nan)
    found = cv.choose_interval(values, 0.95, RNG(6))
    assert found.interval == sign_flip_interval(values, rng=RNG(6))
    assert found.method == cv.SIGN_FLIP and found.coverage >= 0.93


def test_with_failures_among_the_seeds_another_method_covers():
    values = seen(5)
    assert cv.coverage(values, cv.SIGN_FLIP) < 0.93
    found = [cv.choose_interval(values, level, RNG(0)) for level in (0.95, 0.9975)]
    assert found[0].method == found[1].method != cv.SIGN_FLIP
    assert found[0].coverage >= 0.93 and found[1].coverage >= 0.99
    (a, b), (c, d) = (one.interval[1:3] for one in found)
    plain = sign_flip_interval(values, rng=RNG(0))
    assert c < a < plain.low and b < d  # further to the side of the failures


def test_the_nominal_confidence_rises_until_it_covers():
    values = RNG(2).lognormal(sigma=2.0, size=24)
    assert not any(cv._covers(name, tuple(values)) for name in cv.METHODS)
    found = {level: cv.choose_interval(values, level, RNG(0)) for level in (0.9, 0.95)}
    assert {one.method for one in found.values()} == {cv.CALIBRATED}
    nominal = {level: cv._calibrated(tuple(values), level) for level in found}
    for level, one in found.items():
        assert one.coverage >= cv.required(level) and nominal[level] > level
        assert one.interval == cv.transformed_t(values, nominal[level])
        less = 2 * nominal[level] - 1
        assert cv.coverage(values, cv.TRANSFORMED, less) < cv.required(level)


def test_one_failure_cannot_be_covered_and_the_coverage_says_so():
    found = cv.choose_interval(seen(1), 0.95, RNG(0))
    assert found.method == cv.CALIBRATED and found.coverage < 0.7
    longest = cv.transformed_t(seen(1), 1 - 0.05 / 2**cv.HALVINGS)
    assert found.interval[1:3] == pytest.approx(longest[1:3])


@pytest.mark.parametrize("values", [[2.0] * 8, [2.0, 2.0, 2.0, 2.0, 3.0]])
def test_few_or_equal_values_have_an_interval(values):
    found = cv.choose_interval(values, 0.95, RNG(0))
    assert found.interval.low <= np.mean(values) <= found.interval.high


def test_fewer_than_two_values_have_none_and_bad_arguments_are_named():
    found = cv.choose_interval([1.0, np.nan], 0.95, RNG(0))
    assert np.isnan(found.interval.low) and found.interval.missing == 1
    with pytest.raises(ValueError, match="confidence"):
        cv.choose_interval([1.0, 2.0], 95, RNG(0))


def end_to_end(draw, truth, repeats=60):
    """Coverage at 95 % of the chosen interval and of the sign-flip interval on new data."""
    rng, hits = RNG(9), np.zeros((repeats, 2), bool)
    for i in range(repeats):
        x = draw(rng)
        for j, found in enumerate(
            (
                cv.choose_interval(x, 0.95, rng).interval,
                sign_flip_interval(x, rng=rng, resamples=4999),
            )
        ):
            hits[i, j] = found.low <= truth <= found.high
    return hits.mean(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.normal(1, 1, 24), 1.0),
        (lambda rng: rng.exponential(size=48), 1.0),
        (lambda rng: failures(rng, 0.1, 48), 1 - 4.1),
    ],
    ids=["normal", "exponential", "failures"],
)
def test_the_choice_itself_loses_no_coverage(draw, truth):
    chosen, plain = end_to_end(draw, truth)
    assert chosen >= max(plain - 0.02, 0.95 - 3 * np.sqrt(0.05 * 0.95 / 60))
