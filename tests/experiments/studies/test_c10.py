"""C10's evidence is whole."""

import numpy as np
import pytest

from experiments.studies import c10_attention as study
from experiments.studies.common import without_training_metrics
from tests.experiments.studies.study_runs import runner_in


def test_passages_occur_twice_and_targets_are_the_next_symbols():
    made = study.passages(length=5, data_seed=3, limit=400)
    for x, y in made.values():
        assert x.shape[1] == 10
        np.testing.assert_array_equal(x[:, :5], x[:, 5:])
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    other = study.passages(length=5, data_seed=4, limit=400)
    assert not np.array_equal(made["test"][0], other["test"][0])


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = without_training_metrics(study.get_config("laptop"))
    config.experiment.replicates = 2
    config.experiment.model.options.update(width=8, hidden=8)
    config.experiment.data.options.update(limit=4000, length=4)
    config.experiment.data.validation = 40
    config.experiment.train.update(steps=16, eval_every=16, share=64)
    with runner_in(tmp_path) as runner:
        evidence = study.gather(runner, config)
        masks = runner.networks("C10", config, "ticket", 1)[0].mask
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    assert {row["arm"] for row in evidence.rows} == set(study.PROTOCOL.arms)
    cut = [row["value"] for row in evidence.rows if row["arm"] == study.CUT]
    assert max(cut) <= np.log(4) + 1e-5
    pruned = {leaf for leaf, kept in masks.items() if not kept.all()}
    assert len(pruned) == 4 and all("/query/" in leaf or "/key/" in leaf for leaf in pruned)
    study.draw(evidence.rows)
