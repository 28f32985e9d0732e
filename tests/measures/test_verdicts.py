"""The rule of a verdict, and the accuracy of its planner."""

import numpy as np
import pytest

from lth_jax.measures.intervals import Interval, student_t
from lth_jax.measures.verdicts import (
    ALPHA,
    BELOW,
    FOUND,
    INCONCLUSIVE,
    NOT_FOUND,
    NOT_REPLICATED,
    NOT_SUPPORTED,
    OPEN,
    REVERSED,
    SUPPORTED,
    all_of,
    both_rounds,
    seeds_needed,
    verdict,
)


@pytest.mark.parametrize(
    ("low", "high", "delta", "two_sided", "expected"),
    [
        (1.5, 2.5, 1.0, False, SUPPORTED),
        (1.0, 2.5, 1.0, False, SUPPORTED),
        (1.5, 2.5, 2.2, False, OPEN),
        (1.5, 2.5, 3.0, False, BELOW),
        (-0.5, 0.7, 1.0, False, NOT_SUPPORTED),
        (-0.5, -0.1, 1.0, False, NOT_SUPPORTED),
        (-2.5, -1.5, 1.0, False, REVERSED),
        (-2.5, -1.0, 1.0, False, REVERSED),
        (-2.5, -0.5, 1.0, False, INCONCLUSIVE),
        (-1.5, 0.5, 1.0, False, INCONCLUSIVE),
        (-1.0, 2.0, 1.0, False, INCONCLUSIVE),
        (-2.5, -1.5, 1.0, True, SUPPORTED),
        (-2.5, -0.5, 1.0, True, OPEN),
        (-0.5, -0.1, 1.0, True, BELOW),
        (0.1, 0.5, 0.0, False, SUPPORTED),  # above a margin
        (-4.0, -2.0, 0.0, False, NOT_SUPPORTED),  # below it
        (-1.0, 2.0, 0.0, False, INCONCLUSIVE),
        (-np.inf, np.inf, 1.0, False, INCONCLUSIVE),
        (np.nan, np.nan, 1.0, False, INCONCLUSIVE),
    ],
)
def test_every_place_of_an_interval_has_its_verdict(low, high, delta, two_sided, expected):
    interval = Interval((low + high) / 2, low, high, 48, 0)
    assert verdict(interval, delta, two_sided=two_sided) == expected


def test_a_claim_of_several_parts_is_as_firm_as_its_weakest():
    assert all_of([SUPPORTED, SUPPORTED]) == SUPPORTED
    assert all_of([SUPPORTED, BELOW]) == BELOW
    assert all_of([SUPPORTED, OPEN]) == OPEN
    assert all_of([OPEN, BELOW]) == BELOW
    assert all_of([BELOW, INCONCLUSIVE]) == INCONCLUSIVE
    assert all_of([INCONCLUSIVE, NOT_SUPPORTED]) == NOT_SUPPORTED
    assert all_of([NOT_SUPPORTED, REVERSED]) == REVERSED


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (SUPPORTED, SUPPORTED, SUPPORTED),
        (NOT_FOUND, NOT_FOUND, NOT_FOUND),
        (SUPPORTED, BELOW, OPEN),
        (OPEN, SUPPORTED, OPEN),
        (SUPPORTED, INCONCLUSIVE, INCONCLUSIVE),
        (SUPPORTED, NOT_SUPPORTED, NOT_REPLICATED),
        (BELOW, NOT_SUPPORTED, NOT_SUPPORTED),
        (REVERSED, OPEN, NOT_REPLICATED),
        (FOUND, NOT_FOUND, NOT_REPLICATED),
    ],
)
def test_two_rounds_are_as_firm_as_both(first, second, expected):
    assert both_rounds(first, second) == both_rounds(second, first) == expected


def test_a_negative_delta_is_refused():
    with pytest.raises(ValueError, match="`delta` is -1"):
        verdict(Interval(1.0, 0.0, 2.0, 5, 0), -1.0)


def test_the_planned_seeds_decide_as_often_as_asked():
    rng = np.random.default_rng(3)
    spread, delta = 3.0, 1.0
    pilot = np.array([-1.0, 1.0]) * spread / np.sqrt(2)  # a standard deviation of exactly 3
    seeds = seeds_needed(pilot, delta)
    decided = {"effect": 0, "none": 0}
    for _ in range(300):
        for truth, name in ((2 * delta, "effect"), (0.0, "none")):
            found = student_t(rng.normal(truth, spread, seeds), confidence=1 - ALPHA)
            got = verdict(found, delta)
            decided[name] += got == (SUPPORTED if truth else NOT_SUPPORTED)
    assert decided["effect"] / 300 > 0.74
    assert decided["none"] / 300 > 0.74


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": [1.0]}, "`values` has 1 finite"),
        ({"delta": 0.0}, "`delta` is 0.0"),
    ],
)
def test_plans_that_cannot_be_made_are_refused(changes, message):
    given = {"values": [1.0, 2.0], "delta": 1.0, **changes}
    with pytest.raises(ValueError, match=message):
        seeds_needed(**given)
