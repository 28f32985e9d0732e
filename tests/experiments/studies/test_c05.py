"""C5's ensembles agree with their protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c05_ensembles as c5
from tests.experiments.studies.study_runs import runner_in, tiny


def test_restarts_share_examples_and_nothing_else():
    first, second = (c5.restarted(c5.get_config(), start) for start in (0, 1))
    assert first.experiment.data == second.experiment.data
    assert first.experiment.seed != second.experiment.seed


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c5.get_config("laptop"))
    small = ConfigDict({"2": (4, 4, 10), "3": (3, 3, 10)})
    config.study.update(rates=(3e-3, 1e-2), members=(2, 4))
    config.study.small = small
    with runner_in(tmp_path) as runner:
        evidence = c5.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    assert len({part.cell for part in evidence.primaries}) == 4 and len(evidence.primaries) == 8
    assert len(evidence.gate) == config.experiment.replicates
    arms = {row["arm"] for row in evidence.rows}
    # At densities .25 and .125, two and four tickets cost at most one dense network to run, and 4,
    # 7, 4 and 8 to train.
    dense = {arm for arm in arms if arm.endswith("dense")}
    assert dense == {"1 dense", "4 dense", "7 dense", "8 dense"}
    assert "shuffled, 4 at density 0.125" in arms
    c5.draw(evidence.rows)
