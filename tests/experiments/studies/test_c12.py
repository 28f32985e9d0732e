"""C12: masks are carried where they belong."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c12_transfer as c12_study
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c12_study.get_config("laptop"))
    config.experiment.model.options = ConfigDict({"width": 12})
    config.experiment.prune.levels = 1
    config.experiment.control_levels = (1,)
    config.study.plain.options.features = (12, 12, 10)
    config.study.conv_plain.options.stages = ((4, 4, 4),)
    config.study.update(
        ConfigDict(
            {"rates": (1e-2,), "conv_rates": (1e-2,), "pilot_seeds": 2, "conv_pilot_seeds": 2}
        )
    )
    config.conv.update(replicates=2, control_levels=(1,))
    config.conv.model.options.width = 4
    config.conv.train.update(steps=5, eval_every=5)
    config.conv.prune.levels = 1
    with runner_in(tmp_path) as runner:
        evidence = c12_study.gather(runner, config)
        pair = c12_study._pair(config, config.study.plain, {"ticket": 1e-2})
        here, there = (runner.origins("C12", cell) for cell in pair)
    for a, b in zip(here, there, strict=True):  # drawn alike: only the skip is another
        for leaf in a.params:
            np.testing.assert_array_equal(a.params[leaf], b.params[leaf])
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    assert {row["arm"] for row in evidence.rows} == set(c12_study.PROTOCOL.arms)
    c12_study.draw(evidence.rows)
