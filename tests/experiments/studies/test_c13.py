"""C13: students learn from the teachers of the protocol."""

import numpy as np
import pytest

from experiments.studies import c13_distillation as c
from tests.experiments.studies.study_runs import runner_in, tiny


def test_the_interaction_is_a_difference_of_gains():
    accuracy = dict.fromkeys(c.PROTOCOL.arms, 0.5) | {
        "ticket, taught": 0.56,
        "dense, labels": 0.55,
        "dense, taught": 0.57,
    }
    found = {
        arm: {"test_accuracy_final": np.full(3, value), "test_loss_final": np.ones(3)}
        for arm, value in accuracy.items()
    }
    evidence = c.evidence(c.get_config().study, found)
    np.testing.assert_allclose(evidence.primaries[0].values, 6.0)
    secondary = {part.name: part.values[0] for part in evidence.secondary}
    assert secondary["gain of tickets − gain of dense"] == pytest.approx(4.0)
    assert secondary["ticket, taught − dense, labels"] == pytest.approx(1.0)


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c.get_config("laptop"))
    config.study.update(rates=(1e-2,), pilot_seeds=2, temperatures=(2.0,))
    with runner_in(tmp_path) as runner:
        evidence = c.gather(runner, config)
        teachers = c.dense_only(config)
        said, amiss = c.lessons(runner, c.PROTOCOL.claim, teachers, seed=0)
        dense = runner.networks(c.PROTOCOL.claim, teachers, "dense")[1]
        x, y = runner.dataset(teachers).train
        hidden = x[64:128]
        for layer in ("Dense_0", "Dense_1", "Dense_2"):
            last = hidden @ dense.params[f"{layer}/kernel"] + dense.params[f"{layer}/bias"]
            hidden = np.maximum(last, 0)
        np.testing.assert_allclose(said[64:128], last, atol=1e-5)
        rows = np.arange(len(said))
        np.testing.assert_array_equal(said[rows, y[:128]], amiss[rows, y[:128]])
    assert all(np.isfinite(part.values).all() for part in evidence.primaries)
    assert len(evidence.gate) == config.experiment.replicates
    assert {row["arm"] for row in evidence.rows} == set(c.PROTOCOL.arms)
    assert set(evidence.flops) == set(c.PROTOCOL.arms)
    c.draw(evidence.rows)
