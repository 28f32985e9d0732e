"""C14's gaps agree with their protocol."""

import numpy as np
import pytest

from experiments.studies import c14_fairness as c
from lth_jax.measures.fairness import GroupAccuracy
from tests.experiments.studies.study_runs import runner_in, tiny


def test_both_parts_of_the_claim():
    config = c.get_config()
    dense, ticket = (
        GroupAccuracy(np.full(4, a), np.full(4, b)) for a, b in ((0.7, 0.6), (0.72, 0.55))
    )
    gap, overall = c.judged(ticket, dense, 0.1, config.study)
    np.testing.assert_allclose(gap.values, 7.0)
    np.testing.assert_allclose(overall.values, 0.9 * 2 - 0.1 * 5 + 1)


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c.get_config("laptop"))
    config.experiment.data.options.minority = 0.3
    config.experiment.model.options.features = (12, 12, 2)
    config.experiment.prune.levels = 2
    config.experiment.control_levels = (1,)
    config.study.update(rates=(1e-2,), pilot_seeds=2, null_seeds=2, level=1, examples=16)
    with runner_in(tmp_path) as runner:
        evidence = c.gather(runner, config)
    assert all(np.isfinite(part.values).all() for part in evidence.primaries)
    assert len(evidence.gate) == config.experiment.replicates
    arms = {row["arm"] for row in evidence.rows}
    assert arms >= {"dense", "ticket, 60 %", "ticket, 36 %", "shuffle", "ticket, robust"}
    assert any("belong to the minority" in note for note in evidence.notes)
    c.draw(evidence.rows)
