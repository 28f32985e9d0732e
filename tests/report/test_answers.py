"""An answer is believed with the protocol that was stamped for it, and as it was written."""

import numpy as np
import pytest

from lth_jax.measures.claims import Contrasts, Control, Evidence, Protocol, arm_rows, draws
from lth_jax.measures.judge import judgement
from lth_jax.measures.verdicts import SUPPORTED
from lth_jax.report import answers

PROTOCOL = Protocol("X1", *["words"] * 3, "set-up", ("a", "b"), *["words"] * 4)


@pytest.fixture
def folder(tmp_path):
    values = {"a": draws(lambda rng: 3 + rng.normal(), range(18)), "b": np.zeros(18)}
    minus = Contrasts(values, "points")
    evidence = Evidence([minus("a", "b")], arm_rows("accuracy", values))
    controls = [Control("known", SUPPORTED, [minus("a", "b")])]
    stamp, place = (
        answers.stamp_of(PROTOCOL, {"delta": 1.0}, "small"),
        tmp_path / "X1" / "discovery",
    )
    answers.write_stamp(place, stamp)
    answers.write_answer(place, PROTOCOL, evidence, controls, stamp["hash"], 2.5, ("lth_jax",))
    return place


def test_an_answer_is_read_with_its_rows_and_judged(folder):
    found = answers.read_answer(folder, "small")
    assert found["seconds"] == 2.5
    assert judgement(found)["verdict"] == "supported"
    rows = answers.read_rows(folder, found)
    assert len(rows) == 36 and rows[0]["arm"] == "a"


def test_the_hash_is_that_of_words_numbers_and_size():
    def hashed(protocol=PROTOCOL, delta=1.0, size="small"):
        return answers.stamp_of(protocol, {"delta": delta}, size)["hash"]

    others = [hashed(PROTOCOL._replace(rule="other")), hashed(delta=2.0), hashed(size="large")]
    assert hashed() == hashed() and len({hashed(), *others}) == 4


@pytest.mark.parametrize("harm", ["another protocol", "another size", "no rows", "other rows"])
def test_what_does_not_belong_together_is_not_believed(folder, harm, capsys):
    size = "large" if harm == "another size" else "small"
    rows = folder / answers.SEEDS
    if harm == "another protocol":
        answers.write_stamp(folder, answers.stamp_of(PROTOCOL, {"delta": 2.0}, "small"))
    if harm == "no rows":
        rows.unlink()
    if harm == "other rows":
        rows.write_bytes(rows.read_bytes()[:-1])
    assert answers.read_answer(folder, size) is None
    assert "is damaged" in capsys.readouterr().out


def test_a_stamp_of_the_same_protocol_keeps_its_time(folder):
    first = (folder / answers.PROTOCOL).read_bytes()
    answers.write_stamp(folder, answers.stamp_of(PROTOCOL, {"delta": 1.0}, "small"))
    assert (folder / answers.PROTOCOL).read_bytes() == first
    (folder / answers.PROTOCOL).write_bytes(first[:-9])
    answers.write_stamp(folder, answers.stamp_of(PROTOCOL, {"delta": 1.0}, "small"))
    assert answers.read_answer(folder, "small")["seconds"] == 2.5


def test_contrasts_and_draws():
    minus = Contrasts({"a": [3.0], "b": [1.0]}, "points", 0.5, "test ", two_sided=True)
    plain, margin = minus("a", "b"), minus("b", "a", margin=1.5)
    assert plain[0] == "test a − b" and plain[2:5] == (0.5, "points", True)
    assert margin.name == "test b − a + 1.5" and margin.delta == 0.0
    assert margin.values.tolist() == [-0.5]
    assert minus("a", "b", 2.0, name="own")[0:5:2] == ("own", 2.0, True)
    drawn = draws(lambda rng: rng.normal(), [[7, 0], [7, 1], [7, 0]])
    assert drawn[0] == drawn[2] != drawn[1]
