"""The controls of every study: judged right, and with power to be judged so on other seeds."""

import numpy as np
import pytest
from scipy import special

from experiments.studies import STUDIES
from lth_jax.measures import judge
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED

POWER = 0.99


def deviations(primary, expected):
    """A control's distance from its verdict's threshold, in standard errors (α = .001)."""
    values = np.asarray(primary.values, float)
    mean = abs(values.mean()) if primary.two_sided else values.mean()
    error = max(values.std(ddof=1) / np.sqrt(len(values)), 1e-12)
    delta, width = primary.delta, special.ndtri(1 - judge.STRICT / 2)
    inside = delta - abs(mean) if delta else -mean
    room = {SUPPORTED: mean - delta, REVERSED: -mean - delta, NOT_SUPPORTED: inside}[expected]
    return room / error - width


# A busy machine disturbs controls that measure time.
CLAIMS = [
    pytest.param(claim, marks=[pytest.mark.exhaustive] * (one.train is not None))
    for claim, one in STUDIES.items()
]


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_controls_are_judged_right_and_would_be_on_other_seeds(claim):
    one = STUDIES[claim]
    known = one.controls(one.get_config("smoke"))
    expected = {control.expected for control in known}
    assert SUPPORTED in expected and expected & {NOT_SUPPORTED, REVERSED}
    judged = judge.judged(known, np.random.default_rng(0))
    for control, reported in zip(known, judged, strict=True):
        assert reported["got"] == reported["expected"], control.name
        margins = [deviations(part, control.expected) for part in control.primaries]
        # A claim of several parts stands with all of them, and falls with one.
        margin = min(margins) if control.expected == SUPPORTED else max(margins)
        assert special.ndtr(margin) >= POWER, control.name
