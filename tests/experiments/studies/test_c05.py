"""C5's ensembles agree with their protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c05_ensembles as c5
from lth_jax.measures.ensembles import Scores
from tests.experiments.studies.study_runs import runner_in, tiny


def test_gains_are_shares_of_the_dense_ensembles_likelihood():
    study = ConfigDict({"dense": 2, "tickets": 8, "trained": 18, "delta": 2.0})
    nll = {"2 dense": 1.0, "8 tickets": 0.9, "8 small": 1.1, "18 dense": 0.6}
    found = {arm: [Scores(value, 2 * value, 30.0, 0.1)] * 3 for arm, value in nll.items()}
    evidence = c5.evidence(study, found)
    np.testing.assert_allclose(evidence.primaries[0].values, 10.0)
    secondary = {part.name: part.values[0] for part in evidence.secondary}
    assert secondary["8 tickets over 18 dense, likelihood"] == pytest.approx(-50)
    assert secondary["8 small over 2 dense, likelihood"] == pytest.approx(-10)


def test_restarts_share_examples_and_nothing_else():
    first, second = c5.restarted(c5.get_config(), 2).values()
    assert first.experiment.data == second.experiment.data
    assert first.experiment.seed != second.experiment.seed


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c5.get_config("laptop"))
    config.study.update(
        rates=(1e-2,), pilot_seeds=2, tickets=3, trained=3, small=(4, 4, 10), splits=((2, 2),)
    )
    config.study.wide = (12, 12, 10)
    with runner_in(tmp_path) as runner:
        evidence = c5.gather(runner, config)
    assert all(np.isfinite(part.values).all() for part in evidence.primaries)
    assert len(evidence.gate) == config.experiment.replicates
    arms = {row["arm"] for row in evidence.rows}
    assert arms >= {"2 dense", "3 tickets", "2 tickets of round 2", "3 shuffled", "1 wide"}
    assert evidence.flops["3 tickets"] > evidence.flops["3 dense"]
    c5.draw(evidence.rows)
