"""C2: winners are counted exactly."""

import numpy as np
import pytest

from experiments.studies import c02_at_least_one as c2
from tests.experiments.studies.study_runs import runner_in, tiny


def test_the_chance_of_one_mask_is_over_all_masks():
    study = c2.get_config("smoke").study
    rise, fall = c2.parts(np.array([0, 1]), np.array([3, 0]), study)
    assert rise.values.tolist() == [1.0, -1.0]
    assert fall.values == pytest.approx([-100 * 3 / 12_271_512, 1.0])


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c2.get_config("laptop"))
    config.study.update(seeds=20, densities=(0.5, 0.1))
    config.study.popup.update(seeds=2, widths=(4, 8), steps=5)
    with runner_in(tmp_path) as runner:
        evidence = c2.gather(runner, config)
    assert all(
        np.isfinite(part.values).all() for part in (*evidence.primaries, *evidence.secondary)
    )
    assert {row["arm"] for row in evidence.rows} == {c2.WIDE, c2.ONE, c2.KEPT, c2.ALONE}
    c2.draw(evidence.rows)
