"""The rule of a verdict, and the accuracy of its planner."""

import numpy as np
import pytest

from lth_jax.measures.intervals import Interval
from lth_jax.measures.verdicts import (
    BELOW,
    INCONCLUSIVE,
    NOT_SUPPORTED,
    REVERSED,
    SUPPORTED,
    all_of,
    assess,
    seeds_needed,
    verdict,
)


@pytest.mark.parametrize(
    ("ends", "p", "delta", "two_sided", "expected"),
    [
        ((2.0, 1.5, 2.5), 0.001, 1.0, False, SUPPORTED),
        ((2.0, 1.5, 2.5), 0.001, 2.2, False, BELOW),
        ((2.0, 1.5, 2.5), 0.2, 2.2, False, INCONCLUSIVE),  # the correction took it
        ((0.1, -0.5, 0.7), 0.8, 1.0, False, NOT_SUPPORTED),
        ((-2.0, -2.5, -1.5), 0.001, 1.0, False, REVERSED),
        ((-2.0, -2.5, -1.5), 0.001, 1.0, True, SUPPORTED),
        ((0.0, -1.5, 0.5), 0.8, 1.0, False, NOT_SUPPORTED),
        ((0.0, -1.5, 0.5), 0.8, 1.0, True, INCONCLUSIVE),
        ((0.5, -1.0, 2.0), 0.5, 1.0, False, INCONCLUSIVE),
        ((-0.3, -0.5, -0.1), 0.001, 1.0, False, NOT_SUPPORTED),  # reversed, but below δ
        ((0.3, 0.1, 0.5), 0.001, 0.0, False, SUPPORTED),  # above a margin
        ((-3.0, -4.0, -2.0), 0.001, 0.0, False, NOT_SUPPORTED),  # below it
        ((np.nan, np.nan, np.nan), 1.0, 1.0, False, INCONCLUSIVE),
    ],
)
def test_every_place_of_an_interval_has_its_verdict(ends, p, delta, two_sided, expected):
    interval = Interval(*ends, 48, 0)
    assert verdict(interval, p, delta, two_sided=two_sided) == expected


def test_a_claim_of_several_parts_is_as_firm_as_its_weakest():
    assert all_of([SUPPORTED, SUPPORTED]) == SUPPORTED
    assert all_of([SUPPORTED, BELOW]) == BELOW
    assert all_of([BELOW, INCONCLUSIVE]) == INCONCLUSIVE
    assert all_of([INCONCLUSIVE, NOT_SUPPORTED]) == NOT_SUPPORTED
    assert all_of([NOT_SUPPORTED, REVERSED]) == REVERSED


def test_a_negative_delta_is_refused():
    with pytest.raises(ValueError, match="`delta` is -1"):
        verdict(Interval(1.0, 0.0, 2.0, 5, 0), 0.5, -1.0)


def test_the_planned_seeds_decide_as_often_as_asked():
    rng = np.random.default_rng(3)
    spread, delta = 3.0, 1.0
    pilot = np.array([-1.0, 1.0]) * spread / np.sqrt(2)  # a standard deviation of exactly 3
    seeds = seeds_needed(pilot, delta)
    decided = {"effect": 0, "none": 0}
    for _ in range(300):
        for truth, name in ((1.5 * delta, "effect"), (0.0, "none")):
            found = assess(rng.normal(truth, spread, seeds), rng=_Few())
            got = verdict(found.interval, found.p, delta)
            decided[name] += got == (SUPPORTED if truth else NOT_SUPPORTED)
    assert decided["effect"] / 300 > 0.74
    assert decided["none"] / 300 > 0.74


class _Few:
    """A generator that draws few sign vectors, so that the test is quick."""

    def __init__(self):
        self._rng = np.random.default_rng(0)

    def integers(self, low, high, size, dtype):
        return self._rng.integers(low, high, size=(500, size[1]), dtype=dtype)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": [1.0]}, "`values` has 1 finite"),
        ({"delta": 0.0}, "`delta` is 0.0"),
        ({"ratio": 1.0}, "`ratio` 1.0"),
    ],
)
def test_plans_that_cannot_be_made_are_refused(changes, message):
    given = {"values": [1.0, 2.0], "delta": 1.0, **changes}
    with pytest.raises(ValueError, match=message):
        seeds_needed(**given)
