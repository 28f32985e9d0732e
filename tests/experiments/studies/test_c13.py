"""C13: students learn from the teachers of the protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c13_distillation as c
from tests.experiments.studies.study_runs import runner_in, tiny


def test_gains_are_in_percent_of_the_dense_error():
    accuracy = dict.fromkeys(c.PROTOCOL.arms, 50.0) | {
        "ticket, taught": 56.0,
        "dense, labels": 60.0,
        "dense, taught": 62.0,
    }
    found = {arm: np.full(3, value) for arm, value in accuracy.items()}
    evidence = c.evidence(c.get_config().study, found)
    np.testing.assert_allclose(evidence.primaries[0].values, 15.0)
    secondary = {part.name: part.values[0] for part in evidence.secondary}
    assert secondary["gain of tickets − gain of dense"] == pytest.approx(10.0)
    assert secondary["ticket, taught − dense, taught"] == pytest.approx(-15.0)


@pytest.mark.exhaustive
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c.get_config("laptop"))
    config.experiment.update(control_levels=(1,))
    config.experiment.prune.levels = 1
    config.experiment.data.update(train_examples=128, unlabelled=200)
    config.study.update(rates=(1e-2,), unlabelled=5)
    config.teacher.data.update(validation=40, options=config.experiment.data.options)
    config.teacher.model.options = ConfigDict({"stages": ((4,),), "hidden": ()})
    config.teacher.train.update(steps=4, eval_every=2, batch_size=16)
    with runner_in(tmp_path) as runner:
        evidence = c.gather(runner, config)
        teacher, cell = (ConfigDict({"experiment": config[n]}) for n in ("teacher", "experiment"))
        seen = (len(runner.dataset(one).train.y) for one in (c.dense_only(teacher), cell))
        assert list(seen) == [400 - 40, 128]
    assert all(np.isfinite(part.values).all() for part in evidence.primaries)
    assert len(evidence.gate) == config.experiment.replicates
    assert {row["arm"] for row in evidence.rows} == set(c.PROTOCOL.arms)
    c.draw(evidence.rows)
