"""C6's evidence agrees with its protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c06_learning_rate as c6
from lth_jax.measures.optima import best_step
from lth_jax.report.tables import parquet_bytes, read_parquet
from tests.experiments.studies.study_runs import runner_in, tiny


def test_the_control_shifts_as_far_as_spectra_of_many_features_do():
    controls = c6.controls(c6.get_config("smoke"))
    shift = np.mean(controls[0].primaries[0].values)
    limit = np.log2(best_step(20, 4) / best_step(20, 40))
    assert shift == pytest.approx(limit, abs=0.35)  # 4 features are not many


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c6.get_config("laptop"))
    config.experiment.prune.update(levels=1)
    config.experiment.control_levels = (1,)
    config.study.update(ConfigDict({"rates": (0.05, 0.1, 0.2), "examples": 32}))
    with runner_in(tmp_path) as runner:
        evidence = c6.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all(), part.name
        assert len(part.values) == config.experiment.replicates
    assert {row["arm"] for row in evidence.rows} == set(c6.PROTOCOL.arms)
    # Dense networks and two ladders of a level with one control, then 4 arms at 3 rates.
    assert evidence.member_steps == 20 * 2 * (3 + 2 + 4 * 3)
    (tmp_path / "rows").write_bytes(parquet_bytes(evidence.rows))
    c6.draw(read_parquet(tmp_path / "rows"))
