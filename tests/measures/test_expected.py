"""Expectations of the literature against made numbers with known verdicts."""

import numpy as np
import pytest

from lth_jax.measures.expected import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    Expected,
    Networks,
    agreement,
    measured,
)

TICKET, DENSE = Networks("ticket", 0.2), Networks("dense")
VALUES = np.array([0.90, 0.91, 0.92, 0.91, 0.90])


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"value": 0.91, "spread": 0.01, "tolerance": 0.01}, HOLDS),
        ({"value": 0.91, "tolerance": 0.005}, INCONCLUSIVE),  # the interval is wider
        ({"value": 0.95, "spread": 0.01, "tolerance": 0.01}, FAILS),
        ({"low": 0.89}, HOLDS),
        ({"low": 0.905}, INCONCLUSIVE),
        ({"low": 0.93}, FAILS),
        ({"high": 0.89}, FAILS),
        ({"low": 0.8, "high": 0.92}, HOLDS),
    ],
)
def test_a_mean_gets_its_verdict(fields, verdict):
    expected = Expected(TICKET, "a paper", **fields)
    expected.check()
    assert agreement(measured(expected, VALUES), *expected.bounds) == verdict


@pytest.mark.parametrize(("gap", "verdict"), [(0.02, HOLDS), (0.0, INCONCLUSIVE), (-0.02, FAILS)])
def test_a_paired_difference_gets_its_verdict(gap, verdict):
    expected = Expected(TICKET, "a paper", DENSE, low=0.0)
    noise = 0.001 * np.array([1, -1, 1, -1, 0])
    found = measured(expected, VALUES + gap + noise, VALUES)
    assert found.estimate == pytest.approx(gap)
    assert agreement(found, *expected.bounds) == verdict


def test_one_replicate_decides_nothing():
    assert agreement(measured(Expected(TICKET, "", low=0.1), [0.9]), 0.1, np.inf) == INCONCLUSIVE


def test_a_relative_difference_leaves_out_what_cannot_be_divided():
    expected = Expected(TICKET, "a paper", DENSE, value=0.5, tolerance=0.1, relative=True)
    found = measured(expected, [30.0, 60.0, 10.0, np.nan], [20.0, 40.0, 0.0, 10.0])
    assert (found.estimate, found.replicates, found.missing) == (0.5, 2, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs `low` or `high`"),
        ({"low": 1.0, "high": 0.0}, "`low` must be smaller"),
        ({"value": 0.5}, "`low` must be smaller"),
        ({"value": 0.5, "tolerance": 0.1, "spread": -0.05}, "must be at least 0"),
        ({"value": 0.5, "tolerance": 0.1, "relative": True}, "needs `minus`"),
        ({"low": 0.0, "minus": Networks("dense", 1.5)}, "`density` is 1.5"),
    ],
)
def test_malformed_records_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Expected(TICKET, "a paper", **fields).check()


def test_the_other_networks_are_given_exactly_for_differences():
    for expected, other in ((Expected(TICKET, "", low=0.0), VALUES),
                            (Expected(TICKET, "", DENSE, low=0.0), None)):  # fmt: skip
        with pytest.raises(ValueError, match="`other`"):
            measured(expected, VALUES, other)
