"""C10's evidence is whole."""

import numpy as np
import pytest

from experiments.studies import c10_attention as study
from tests.experiments.studies.study_runs import runner_in


def test_masks_that_shuffled_ones_match_are_no_tickets():
    assert "say nothing" in study.premise(np.zeros(8))
    assert "say nothing" in study.premise(np.linspace(-3, 4, 8))
    assert "are tickets" in study.premise(np.linspace(3, 4, 8))


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = study.get_config("laptop")
    config.experiment.replicates = 2
    config.experiment.model.options.update(width=8, heads=2, hidden=8)
    config.experiment.data.options.update(train=200, test=50)
    config.experiment.data.validation = 40
    config.experiment.train.update(steps=10, eval_every=10, share=64)
    with runner_in(tmp_path) as runner:
        evidence = study.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    assert {row["arm"] for row in evidence.rows} == set(study.PROTOCOL.arms)
    cut = [row["value"] for row in evidence.rows if row["arm"] in ("top 4", "dense, cut")]
    assert max(cut) <= np.log(4) + 1e-5
    study.draw(evidence.rows)
