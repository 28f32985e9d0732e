"""From numbers to verdicts: controls first, then the premise, then the claim, all corrected."""

import numpy as np
import pytest

from lth_jax.measures import judge
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED

PROTOCOL = Protocol("X1", *["words"] * 3, "set-up", ("a",), *["words"] * 4)
RNG = np.random.default_rng(0)


def effect(mean, delta=1.0, seeds=18, spread=1.0):
    """A primary whose values have exactly this mean and spread."""
    values = RNG.normal(size=seeds)
    values = (values - values.mean()) / values.std(ddof=1)
    return Primary("effect", mean + spread * values, delta, "points")


def found_of(*primaries, gate=None, controls=()):
    return judge.found(PROTOCOL, Evidence(primaries, (), gate=gate), controls)


def verdict_of(found, others=()):
    everything = {"X1": found, **{f"Y{i}": other for i, other in enumerate(others)}}
    return judge.verdicts(everything, list(everything))["X1"]["verdict"]


@pytest.mark.parametrize(
    ("mean", "expected"),
    [(3.0, "supported"), (0.8, "real but below δ"), (0.0, "not supported"), (-3.0, "reversed")],
)
def test_a_claim_gets_its_verdict(mean, expected):
    assert verdict_of(found_of(effect(mean))) == expected


def test_too_few_seeds_decide_nothing_and_say_how_many_would():
    judged = judge.verdicts({"X1": found_of(effect(1.5, spread=6.0))}, ["X1"])["X1"]
    assert judged["verdict"] == "inconclusive"
    assert "seeds would decide" in judged["why"]


def test_other_claims_make_it_harder():
    found = found_of(effect(1.2, spread=2.0))
    p = found["primaries"][0]["p"]
    assert 0.005 < p < 0.05
    assert verdict_of(found) == "supported"
    assert judge.verdicts({"X1": found}, ["X1", *"ABCDEFGHI"])["X1"]["verdict"] == "inconclusive"


def test_all_parts_of_a_claim_must_hold():
    assert verdict_of(found_of(effect(3.0), effect(0.0))) == "not supported"


@pytest.mark.parametrize(("expected", "name"), [(SUPPORTED, "supported"), (NOT_SUPPORTED, "void")])
def test_a_wrong_control_voids_a_study(expected, name):
    control = Control("known", expected, [effect(3.0)])
    found = found_of(effect(3.0), controls=[control])
    assert found["controls"][0]["got"] == SUPPORTED
    assert verdict_of(found) == name


def test_without_a_ticket_there_is_no_question():
    gate = np.linspace(-1, 1, 18)
    assert verdict_of(found_of(effect(3.0), gate=gate)) == "premise not met"
    assert verdict_of(found_of(effect(3.0), gate=gate + 2)) == "supported"


def test_controls_alone_are_said_to_hold():
    assert verdict_of(found_of(controls=[Control("known", SUPPORTED, [effect(3.0)])])) == (
        "controls hold"
    )
