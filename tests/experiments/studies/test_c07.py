"""C7's evidence agrees with its protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c07_regularisation as c7
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.exhaustive
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c7.get_config("laptop"))
    config.study.update(ConfigDict({"rates": (1e-2,), "small": (4, 4, 10)}))
    with runner_in(tmp_path) as runner:
        evidence = c7.gather(runner, config)
    assert all(np.isfinite(part.values).all() for part in evidence.primaries)
    assert evidence.gate is not None and len(evidence.gate) == config.experiment.replicates
    assert {row["arm"] for row in evidence.rows} == set(c7.PROTOCOL.arms)
    assert set(evidence.flops) == set(c7.PROTOCOL.arms)
    assert evidence.flops["ticket"] > evidence.flops["dense"]
    c7.draw(evidence.rows)
