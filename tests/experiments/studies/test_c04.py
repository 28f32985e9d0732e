"""C4: dead units cost time and nothing else."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c04_structured as c4
from experiments.studies import common
from tests.experiments.studies.study_runs import runner_in


def test_half_of_the_classes_are_lost_with_their_units():
    lost = [c4.one_unit_each(np.random.default_rng(i)) for i in range(40)]
    assert np.mean(lost) == pytest.approx(45.0, abs=5.0)  # without signal, class 0 is guessed


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = c4.get_config("laptop")
    for experiment in common.experiments_of(config):
        experiment.replicates = 2
        experiment.data.validation = 40
        experiment.data.options.update(train=400, test=60)
        experiment.train.update(steps=4, eval_every=2, batch_size=8, share=64)
        experiment.optimizer.warmup = 1
    config.experiment.model.options.features = (8, 8, 10)
    config.channels.experiment.model.options.stages = ((4,), (4,))
    config.heads.experiment.model.options.update(width=8, heads=4, hidden=8)
    config.study.update(batch=16, rounds=2)
    config.study.grids = ConfigDict(dict.fromkeys(c4.KINDS, (3e-3, 1e-2)))
    with runner_in(tmp_path) as runner:
        evidence = c4.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all(), part.name
        assert len(part.values) == 2
    assert len({part.cell for part in evidence.primaries}) == 9
    assert {row["arm"] for row in evidence.rows} == set(c4.PROTOCOL.arms)
    c4.draw(evidence.rows)
