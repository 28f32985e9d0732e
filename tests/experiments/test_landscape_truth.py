import pytest

from experiments.benchmarks import landscape_truth as truth


@pytest.mark.slow
@pytest.mark.parametrize("case", truth.CASES, ids=lambda case: case.__name__)
def test_every_known_answer_is_met(case):
    assert [row["case"] for row in map(truth.row, case()) if not row["met"]] == []


@pytest.mark.slow
def test_matfree_shows_why_a_guard_is_needed():
    pytest.importorskip("matfree", reason="matfree is not installed")
    worst = max(abs(known.others["matfree"] - known.known) for known in truth.rank_ten())
    assert worst > 449
