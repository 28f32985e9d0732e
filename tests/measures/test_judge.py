"""From numbers to verdicts: controls first, then the premise, then the claim, all corrected."""

import numpy as np
import pytest

from lth_jax.measures import judge
from lth_jax.measures.claims import COMPARISON, CURVE, MAP, Control, Evidence, Primary, Protocol
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED

PROTOCOL = Protocol("X1", *["words"] * 3, "set-up", ("a",), *["words"] * 4)
RNG = np.random.default_rng(0)


def effect(mean, delta=1.0, seeds=18, spread=1.0):
    """A primary whose values have exactly this mean and spread."""
    values = RNG.normal(size=seeds)
    values = (values - values.mean()) / values.std(ddof=1)
    return Primary("effect", mean + spread * values, delta, "points")


def found_of(*primaries, gate=None, controls=(), kind=COMPARISON):
    evidence = Evidence(primaries, (), gate=gate)
    return judge.summarise_round(PROTOCOL._replace(kind=kind), evidence, controls)


def verdict_of(found):
    return judge.judgement(found)["verdict"]


@pytest.mark.parametrize(
    ("mean", "delta", "expected"),
    [
        (3.0, 1.0, "supported"),
        (3.0, 2.5, "real, size open"),
        (3.0, 6.0, "real, below δ"),
        (0.0, 1.5, "not supported"),
        (-3.0, 1.0, "reversed"),
    ],
)
def test_a_claim_gets_its_verdict(mean, delta, expected):
    assert verdict_of(found_of(effect(mean, delta))) == expected


def test_the_corrected_interval_is_wider_and_decides():
    found = found_of(effect(1.0, delta=0.2, spread=1.2))
    part = found["primaries"][0]
    low, high = part["corrected"]
    assert low < 0.2 <= part["low"] and part["high"] < high
    assert verdict_of(found) != "supported"


def test_too_few_seeds_decide_nothing_and_say_how_many_would():
    judged = judge.judgement(found_of(effect(1.5, spread=6.0)))
    assert judged["verdict"] == "inconclusive"
    assert "seeds would decide" in judged["why"]
    few = judge.judgement(found_of(effect(3.0, seeds=6)))  # the corrected interval is unbounded
    assert few["verdict"] == "inconclusive"


def test_a_map_is_found_where_all_parts_of_a_cell_hold():
    def part(cell, mean):
        return effect(mean)._replace(name=f"{cell}, {mean:g}", cell=cell)

    cells = part("here", 3.0), part("here", 4.0), part("there", 3.0), part("there", 0.0)
    held = found_of(*cells, kind=MAP)
    judged = judge.judgement(held)
    assert (judged["verdict"], judged["held"]) == ("found", ["here"])
    assert judged["why"].startswith("in 1 of 2 cells (here); in the best cell")
    none = judge.judgement(found_of(part("here", 0.5), kind=MAP))
    assert (none["verdict"], none["held"]) == ("not found in this map", [])
    assert none["why"].startswith(
        "in no cell; in the best cell, the part with the smallest margin over its δ is here, 0.5: "
        "+0.5"
    )
    wide = [p["corrected"][1] - p["corrected"][0] for p in held["primaries"]]
    alone = found_of(effect(3.0))["primaries"][0]["corrected"]
    assert max(wide) > alone[1] - alone[0]  # simultaneous bands are wider


def test_a_curve_has_no_verdict():
    assert verdict_of(found_of(effect(3.0), kind=CURVE)) == "measured"


def test_a_verdict_needs_both_rounds():
    yes, no = (judge.judgement(found_of(effect(mean))) for mean in (3.0, 0.0))
    alone = judge.overall({"discovery": yes})
    assert alone["verdict"] == "supported" and not alone["is_replicated"]
    both = judge.overall({"discovery": yes, "replication": yes})
    assert both["verdict"] == "supported" and both["is_replicated"]
    other = judge.overall({"discovery": yes, "replication": no})
    assert other["verdict"] == "not replicated"
    assert other["rounds"] == {"discovery": "supported", "replication": "not supported"}
    void = yes | {"verdict": "void"}
    assert judge.overall({"discovery": void, "replication": yes})["verdict"] == "void"


def test_a_cell_of_a_map_must_hold_in_both_rounds():
    def of(*held):
        return {"verdict": "found" if held else "not found in this map", "why": "", "held": held}

    def together(first, second):
        return judge.overall({"discovery": first, "replication": second})

    assert together(of("a", "b"), of("b"))["held"] == ["b"]
    assert together(of("a"), of("b"))["verdict"] == "not found in this map"
    assert together(of("a"), of())["verdict"] == "not replicated"


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
