"""Critical densities of curves with known crossings."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest

from lth_jax.measures.critical import (
    Critical,
    critical_density,
    rank_correlations,
    slopes,
    slopes_by_axis,
)
from lth_jax.measures.intervals import student_t

DENSITIES = 0.6 ** np.arange(1, 7)


class Place(NamedTuple):
    width: int
    steps: int
    examples: int


@pytest.mark.parametrize("crossing", [0.8, 0.3, 0.06])
def test_a_line_in_log_density_is_crossed_where_it_crosses(crossing):
    curve = 5 - 5 * np.log(DENSITIES) / np.log(crossing)  # 5 at density 1
    found = critical_density(DENSITIES, [curve - 5] * 4, margin=5.0)
    assert 2**found.estimate == pytest.approx(crossing) and found.reached
    assert found.values == pytest.approx(np.log2(crossing))


def test_curves_that_never_or_always_fall_behind_have_the_ends():
    always = critical_density(DENSITIES, -np.ones((3, 6)))
    assert (always.estimate, always.reached) == (0.0, True)
    never = critical_density(DENSITIES, np.ones((3, 6)))
    assert 2**never.estimate == pytest.approx(DENSITIES[-1]) and not never.reached
    early = critical_density([0.5, 0.25, 0.125], [[1.0, -1.0, 1.0]])
    assert 2**early.estimate == pytest.approx(0.5**1.5)  # the first fall counts
    assert np.isnan(early.values).all()


def test_pseudo_values_cover_the_crossing_of_the_mean_curve():
    truth = np.array([2.0, 3.0, 0.5, -4.0, -12.0, -25.0])
    exact = critical_density(DENSITIES, [truth], margin=10.0).estimate
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        noise = rng.normal(0, 2, (12, 6)) + rng.normal(0, 2, (12, 1))
        found = critical_density(DENSITIES, truth + noise, margin=10.0)
        interval = student_t(found.values)
        hits += interval.low <= exact <= interval.high
    assert 0.93 <= hits / 400 <= 0.98


def test_diverged_seeds_are_excluded():
    gains = np.array([[1.0, -1.0], [np.nan, 0.0], [3.0, -1.0]])
    found = critical_density([0.5, 0.25], gains)
    assert np.isnan(found.values[1]) and np.isfinite(found.values[[0, 2]]).all()
    assert found.estimate == critical_density([0.5, 0.25], gains[[0, 2]]).estimate
    assert np.isnan(critical_density([0.5, 0.25], gains[[1]]).estimate)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"densities": [0.25, 0.5]}, "must fall in"),
        ({"densities": [1.0, 0.5]}, "must fall in"),
        ({"gains": [1.0, 2.0]}, "`gains` `\\[seeds, levels\\]`"),
        ({"margin": -1.0}, "`margin` must be at least 0, got -1.0"),
    ],
)
def test_bad_curves_are_refused(changes, message):
    given = {"densities": [0.5, 0.25], "gains": [[1.0, 2.0]], "margin": 0.0, **changes}
    with pytest.raises(ValueError, match=message):
        critical_density(**given)


def test_slopes_and_rank_correlations_are_those_of_each_seed():
    x = np.array([5.0, 6.0, 8.0])
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4, 3))
    assert slopes(x, values) == pytest.approx([np.polyfit(x, one, 1)[0] for one in values])
    assert np.isnan(slopes([5.0], values[:, :1])).all()
    a = rng.normal(size=(3, 8))
    assert rank_correlations(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlations(a, -(a**3)) == pytest.approx(-1)


def test_slopes_are_means_over_settings_in_which_all_densities_exist():
    seeds, found = np.zeros(3), {}
    for place in itertools.starmap(Place, itertools.product((32, 64), (200, 600), (1000, 4000))):
        logs = -0.5 * np.log2(place.width) + (1.0 if place.steps == 600 else 0.0)
        found[place] = Critical(logs, logs + seeds, True)
    assert slopes_by_axis(found, "width") == pytest.approx(-0.5)
    assert slopes_by_axis(found, "steps") == pytest.approx(1 / np.log2(3))
    assert slopes_by_axis(found, "examples") == pytest.approx(0)
    for place in found:
        if place.examples == 1000:
            found[place] = Critical(9.0, 9.0 + seeds, reached=False)
    assert slopes_by_axis(found, "width") == pytest.approx(-0.5)
    assert np.isnan(slopes_by_axis(found, "examples")).all()
