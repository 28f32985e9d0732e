"""C8's evidence agrees with its protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c08_little_data as c8
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.exhaustive
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c8.get_config("laptop"), replicates=4)
    config.experiment.prune.levels = 2
    config.experiment.control_levels = (1,)
    config.study.update(ConfigDict({"examples": (32, 64), "rates": (1e-2, 3e-2)}))
    with runner_in(tmp_path) as runner:
        evidence = c8.gather(runner, config)
    [difference] = evidence.primaries
    for part in (difference, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 4, part.name
    few, many = evidence.secondary[:2]
    assert many.name == "gain with 64 examples"
    np.testing.assert_allclose(difference.values, few.values - many.values)
    assert len(evidence.gate) == 4
    assert evidence.member_steps == 2 * 2 * 4 * (1 + 2 + 1) * 20
    assert [row["value"] for row in evidence.rows if row["density"] == 1] == [0.0] * 8
    c8.draw(evidence.rows)
