"""C17 compares the accuracies by class of networks from several starts."""

import numpy as np
import pytest

from experiments.studies import c17_specialists as c17
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c17.get_config("laptop"), replicates=4)
    config.study.update(rates=(1e-2, 3e-2), starts=3)
    with runner_in(tmp_path) as runner:
        evidence = c17.gather(runner, config)
    [part] = evidence.primaries
    found = {
        arm: np.array([row["value"] for row in evidence.rows if row["arm"] == arm])
        for arm in c17.PROTOCOL.arms
    }
    expected = 100 * (found["ticket"] - found["dense"]) / found["dense"].mean()
    np.testing.assert_allclose(part.values, expected)
    assert all(len(values) == 4 and (values > 0).all() for values in found.values())
    # The ladder of each start and rate has dense networks, two tickets and a shuffled mask.
    assert evidence.member_steps % (4 * 4 * 20) == 0
    assert {len(one.values) for one in evidence.secondary} == {4}
    c17.draw(evidence.rows)


def test_drawn_members_have_the_specialisation_of_their_strength():
    found = [c17._drawn(np.random.default_rng([1, i]), 0.1) for i in range(20)]
    sampling = 0.7 * 0.3 / 200
    assert np.mean(found) == pytest.approx(100 * np.sqrt(0.1**2 + sampling), rel=0.1)
