"""C14's gaps agree with their protocol."""

import numpy as np
import pytest

from experiments.studies import c14_fairness as c
from lth_jax.measures.fairness import GroupAccuracy
from tests.experiments.studies.study_runs import runner_in, tiny


def test_both_parts_are_in_percent_of_the_minoritys_dense_error():
    dense, ticket = (
        GroupAccuracy(np.full(4, a), np.full(4, b)) for a, b in ((0.7, 0.6), (0.72, 0.55))
    )
    gap, minority = c.judged(ticket, dense, c.get_config().study)
    np.testing.assert_allclose(gap.values, 100 * 7 / 40)
    np.testing.assert_allclose(minority.values, 100 * 5 / 40)


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c.get_config("laptop"))
    config.experiment.model.options.features = (12, 12, 2)
    config.experiment.prune.levels = 2
    config.experiment.control_levels = (2,)
    config.study.update(rates=(3e-3, 1e-2), levels=(1, 2), minorities=(0.2, 0.4))
    with runner_in(tmp_path) as runner:
        evidence = c.gather(runner, config)
        cell = c.vary(config, data__options__minority=0.2, data__options__apart=False)
        tuned = runner.tuned("C14", cell)
        found, _ = c.accuracies(runner, "C14", cell, tuned)
    for arm, level in found:  # the networks are those at the rates that were chosen
        even = found[arm, level].overall(runner.dataset(cell).groups["test"].mean())
        np.testing.assert_allclose(
            even, 100 * tuned.of(arm, "test_accuracy_final", level), rtol=1e-5
        )
    assert all(np.isfinite(part.values).all() for part in evidence.primaries)
    assert len(evidence.primaries) == 2 * len({part.cell for part in evidence.primaries}) == 16
    assert len(evidence.gate) == config.experiment.replicates
    assert all("belong to the minority" in note for note in evidence.notes)
    c.draw(evidence.rows)
