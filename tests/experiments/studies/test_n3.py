"""N3's evidence agrees with its protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import n3_critical_density as n3
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(n3.get_config("laptop"), replicates=4)
    config.experiment.prune.levels = 2
    config.experiment.control_levels = (1,)
    sizes = {"widths": (8, 12), "steps": (10,), "examples": (32,), "levels": (1, 2)}
    config.study.update(ConfigDict({**sizes, "points": 3, "margin": 0.0}))
    with runner_in(tmp_path) as runner:
        evidence = n3.gather(runner, config)
    parts = {part.name: part.values for part in evidence.secondary}
    assert all(len(values) == 4 for values in parts.values())
    assert np.isfinite([parts[name] for name in parts if name.startswith("barrier")]).all()
    assert np.isfinite(parts["tickets stop earlier"]).all()
    assert len(evidence.primaries) == 1 and len(evidence.gate) == 4
    assert len(evidence.rows) == 2 * 2 * 4  # places, levels, seeds
    ladders = 2 * 4 * (1 + 2 + 1)  # rates, seeds, networks
    assert evidence.member_steps == 2 * 10 * (ladders + 2 * 4 * 3)
    n3.draw(evidence.rows)
