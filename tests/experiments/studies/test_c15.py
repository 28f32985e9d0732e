"""C15: all forms of a ticket are timed for every seed."""

import numpy as np
import pytest

from experiments.studies import c15_unstructured_speed as c15
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c15.get_config("laptop"))
    config.study.update(batch=16, rounds=2)
    with runner_in(tmp_path) as runner:
        evidence = c15.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    assert {row["arm"] for row in evidence.rows} == set(c15.PROTOCOL.arms[1:])
    c15.draw(evidence.rows)
