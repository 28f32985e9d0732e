"""C8's evidence agrees with its protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c08_little_data as c8
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c8.get_config("laptop"), replicates=3)
    config.experiment.prune.levels = 2
    config.experiment.control_levels = (1,)
    sizes = {
        "examples": (16, 32, 64),
        "asked": (32, 64),
        "noises": (0.0, 0.5),
        "rates": (1e-2,),
        "pilot_seeds": 2,
        "map_seeds": 2,
    }
    config.study.update(ConfigDict(sizes))
    with runner_in(tmp_path) as runner:
        evidence = c8.gather(runner, config)
    (best,) = evidence.primaries
    assert np.abs(best.values).max() <= -2 * np.log2(0.6)
    for part in (best, *evidence.secondary):
        assert np.isfinite(part.values).all(), part.name
    assert len(evidence.gate) == config.experiment.replicates
    assert len(best.values) == 3
    assert evidence.member_steps == (4 * 2 + 2 * 3) * (1 + 2 + 1) * 20
    dense = [row["value"] for row in evidence.rows if row["density"] == 1]
    assert dense == [0.0] * (4 * 2 + 2 * 3)
    c8.draw(evidence.rows)
