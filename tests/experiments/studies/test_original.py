"""The original hypothesis: its evidence is whole."""

import numpy as np
import pytest

from experiments.studies import original
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(original.get_config("laptop"))
    config.experiment.prune.levels = 1
    config.experiment.control_levels = (1,)
    config.study.rates = (1e-2,)
    with runner_in(tmp_path) as runner:
        evidence = original.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all(), part.name
    assert len(evidence.primaries) == 4 and len(evidence.gate) == 2
    assert {row["arm"] for row in evidence.rows} == set(original.PROTOCOL.arms)
    assert set(evidence.flops) == set(original.PROTOCOL.arms)
    original.draw(evidence.rows)
