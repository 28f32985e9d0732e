"""C4: dead units cost time and nothing else."""

import numpy as np
import pytest

from experiments.studies import c04_structured as c4
from tests.experiments.studies.study_runs import runner_in


def test_half_of_the_classes_are_lost_with_their_units():
    lost = [c4.one_unit_each(np.random.default_rng(i)) for i in range(40)]
    assert np.mean(lost) == pytest.approx(45.0, abs=5.0)  # class 0 is guessed where nothing speaks


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = c4.get_config("laptop")
    for experiment in (config.experiment, config.heads.experiment):
        experiment.replicates = 2
        experiment.train.update(steps=4, eval_every=2, batch_size=8)
    config.experiment.model.options.stages = ((4,), (4,))
    config.heads.experiment.model.options.update(width=8, heads=4, hidden=8, patch=4)
    config.study.update(rates=(1e-2,), pilot_seeds=2, longer=2, batch=16, rounds=(2, 1))
    with runner_in(tmp_path) as runner:
        evidence = c4.gather(runner, config)
    assert all(
        np.isfinite(part.values).all() for part in (*evidence.primaries, *evidence.secondary)
    )
    assert {row["arm"] for row in evidence.rows} == set(c4.PROTOCOL.arms)
    c4.draw(evidence.rows)
