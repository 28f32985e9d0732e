"""Tails, odds and expected maxima against distributions whose answers are known."""

import itertools

import numpy as np
import pytest
from scipy import stats

from lth_jax.measures import extremes
from lth_jax.measures.intervals import student_t

LAWS = {
    "uniform": (stats.uniform(), -1.0),
    "bounded": (stats.genpareto(-0.3), -0.3),
    "exponential": (stats.expon(), 0.0),
    "heavy": (stats.genpareto(0.2), 0.2),
}


def samples(law, count, size, seed=0):
    return law.rvs(size=(count, size), random_state=np.random.default_rng(seed))


@pytest.mark.parametrize("name", LAWS)
def test_the_fit_finds_shape_scale_and_end(name):
    law, shape = LAWS[name]
    fits = [extremes.fit_tail(one, 0.1) for one in samples(law, 100, 4000)]
    assert np.mean([fit.shape for fit in fits]) == pytest.approx(shape, abs=0.03)
    # Beyond u the excesses are generalised Pareto with scale 1 + ξu; uniform numbers with 1 − u.
    scale = np.mean([fit.scale / (1 + shape * fit.threshold) for fit in fits])
    assert scale == pytest.approx(1, abs=0.04)
    ends = {fit.end == np.inf for fit in fits}
    assert True in ends if shape >= 0 else ends == {False}


@pytest.mark.parametrize("name", LAWS)
def test_odds_beyond_the_sample_are_those_of_the_distribution(name):
    law, _ = LAWS[name]
    power = 3 if name == "uniform" else 4  # the end point has an error, too
    value = law.isf(10.0**-power)
    found = [extremes.log10_odds(one, value, 0.1) for one in samples(law, 100, 4000, seed=1)]
    assert np.median(found) == pytest.approx(power, abs=0.25)
    inside = extremes.log10_odds(samples(law, 1, 4000)[0], law.isf(0.5), 0.1)
    assert inside == pytest.approx(np.log10(2), abs=0.05)


@pytest.mark.parametrize("name", ["uniform", "bounded", "exponential", "normal"])
def test_an_exponential_tail_bounds_the_odds_of_tails_that_are_no_heavier(name):
    law = stats.norm() if name == "normal" else LAWS[name][0]
    for chance in (1e-4, 1e-6):
        value = law.isf(chance)
        drawn = samples(law, 300, 1500, seed=2)
        found = [extremes.log10_odds(one, value, 0.05, shape=0.0) for one in drawn]
        error = 4 * np.std(found) / np.sqrt(300)
        assert np.mean(found) <= -np.log10(chance) + error
        if name == "exponential":  # no bias
            assert np.mean(found) >= -np.log10(chance) - error


def test_ranks_bound_the_odds_in_the_mean():
    drawn = np.random.default_rng(3).uniform(size=(4000, 99))
    for chance in (0.5, 0.05, 0.001):
        found = [extremes.rank_odds(one, 1 - chance) for one in drawn]
        exact = (1 - (1 - chance) ** 100) / chance
        assert np.mean(np.power(10, found)) == pytest.approx(exact, rel=0.05)
        assert np.mean(found) <= min(-np.log10(chance), 2)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2])
def test_expected_maxima_are_those_of_simulated_draws(shape):
    tail = extremes.Tail(threshold=0.0, scale=1.0, shape=shape, share=1.0)
    drawn = samples(stats.genpareto(shape), 4000, 200, seed=4).max(axis=1)
    error = 4 * drawn.std() / np.sqrt(4000)
    assert tail.expected_maximum(200) == pytest.approx(drawn.mean(), abs=error)
    assert tail.chance([0.0, 1.0]) == pytest.approx(stats.genpareto(shape).sf([0, 1]))


def test_the_best_of_a_few_is_the_mean_over_all_subsets():
    sample = np.random.default_rng(5).normal(size=(2, 7))
    for count in (1, 3, 7):
        subsets = [sample[:, list(c)].max(axis=1) for c in itertools.combinations(range(7), count)]
        assert extremes.best_of(sample, count) == pytest.approx(np.mean(subsets, axis=0))


def test_medians_take_infinite_values_and_cover():
    assert extremes.median_interval([np.inf] * 9 + [1.0])[:3] == (np.inf, np.inf, np.inf)
    assert extremes.median_interval([1.0, np.inf, 3.0, np.nan])[:3] == (3.0, -np.inf, np.inf)
    drawn = np.random.default_rng(6).exponential(size=(2000, 12))
    found = [extremes.median_interval(one) for one in drawn]
    covered = np.mean([one.low <= np.log(2) <= one.high for one in found])
    assert 0.95 <= covered <= 0.975  # exact: 0.961


def test_student_intervals_of_a_dozen_seeds_cover_the_odds():
    drawn = samples(stats.expon(), 12 * 400, 600, seed=7)
    odds = [extremes.log10_odds(one, 6 * np.log(10), 0.05, shape=0.0) for one in drawn]
    found = [student_t(seeds) for seeds in np.reshape(odds, (400, 12))]
    assert np.mean([one.low <= 6 <= one.high for one in found]) >= 0.93


def test_bootstrapped_odds_cover_those_of_an_exponential_tail():
    rng, value = np.random.default_rng(8), 4 * np.log(10)
    drawn = samples(stats.expon(), 100, 2000, seed=9)
    found = [extremes.bootstrap_odds(one, value, 0.1, rng=rng, resamples=100) for one in drawn]
    assert np.mean([one.low <= 4 <= one.high for one in found]) >= 0.8  # 0.9 asymptotically


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: extremes.fit_tail(np.arange(50.0), 0.1), "`share` 0.1 of 50 draws leaves 5"),
        (lambda: extremes.fit_tail(np.zeros(500)), "25 equal values"),
        (lambda: extremes.fit_tail(np.arange(500.0), shape=0.5), "must be None or 0"),
        (lambda: extremes.fit_tail([np.nan] * 500), "`draws` must be one-dimensional and finite"),
        (lambda: extremes.best_of([1.0, 2.0], 3), r"\[1, 2\]"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("wrong", [{"confidence": 0}, {"confidence": 1.5}, {"resamples": 0}])
def test_intervals_out_of_range_are_refused(wrong):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must"):
        extremes.bootstrap_odds(rng.normal(size=400), 1.0, 0.1, rng=rng, **wrong)
