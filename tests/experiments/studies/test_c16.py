"""C16 counts the steps to a loss from training curves."""

import numpy as np
import pytest

from experiments.studies import c16_convergence as c16
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c16.get_config("laptop"))
    config.experiment.train.eval_every = 5
    config.study.update(rates=(0.1, 0.4), losses=(5.0, 1e-3))
    with runner_in(tmp_path) as runner:
        evidence = c16.gather(runner, config)
    assert len(evidence.primaries) == 2 * 4
    for part in (*evidence.primaries, *evidence.secondary):
        np.testing.assert_array_equal(part.values, np.zeros(2))  # at once, or not at all
    assert {round(row["value"], 3) for row in evidence.rows} == {5, 20}
    assert "100 % of the last tickets do not reach it" in evidence.notes[1]
    c16.draw(evidence.rows)
