"""C11's evidence is whole."""

import numpy as np
import pytest

from experiments.studies import c11_recurrent as study
from tests.experiments.studies.study_runs import runner_in


@pytest.mark.exhaustive
def test_the_evidence_is_whole(tmp_path):
    config = study.get_config("laptop")
    config.experiment.replicates = 2
    config.experiment.model.options.width = 8
    config.experiment.data.options.update(train=200, test=50, delay=3)
    config.experiment.data.validation = 40
    config.experiment.train.update(steps=10, eval_every=10, share=64)
    config.study.update(rates=(1e-3, 3e-3), siblings=2)
    with runner_in(tmp_path) as runner:
        evidence = study.gather(runner, config)
    solved = evidence.primaries[0]
    assert solved.is_share and set(np.abs(solved.values)) <= {0.0, 100.0}
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    assert {row["arm"] for row in evidence.rows} == set(study.PROTOCOL.arms)
    study.draw(evidence.rows)
