"""C18 compares tickets that are rewound to the start and to an early step."""

import numpy as np
import pytest

from experiments.studies import c18_stability as c18
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c18.get_config("laptop"), replicates=4)
    config.study.update(rates=(1e-2, 3e-2), late=5, points=3)
    with runner_in(tmp_path) as runner:
        evidence = c18.gather(runner, config)
    barrier, accuracy = evidence.primaries
    assert barrier.name == f"barrier, ticket − {c18.LATE}"
    rows = {
        (row["metric"].split()[0], row["arm"]): [
            one["value"]
            for one in evidence.rows
            if (one["metric"], one["arm"]) == (row["metric"], row["arm"])
        ]
        for row in evidence.rows
    }
    error = 100 - np.mean(rows["test", "dense"])
    by_hand = 100 * (np.array(rows["error", "ticket"]) - rows["error", c18.LATE]) / error
    np.testing.assert_allclose(barrier.values, by_hand)
    ahead = 100 * (np.array(rows["test", c18.LATE]) - rows["test", "ticket"]) / error
    np.testing.assert_allclose(accuracy.values, ahead, atol=1e-9)
    # Two ladders at two rates, of five levels, one with a control; and two children of 12 starts.
    assert evidence.member_steps == 20 * 4 * (2 * (5 + 1) + 2 * 5) + 24 * 20
    c18.draw(evidence.rows)
