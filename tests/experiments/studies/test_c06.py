"""C6's evidence agrees with its protocol."""

import numpy as np
import pytest

from experiments.studies import c06_learning_rate as c6
from lth_jax.measures.optima import best_step
from lth_jax.report.tables import parquet_bytes, read_parquet
from tests.experiments.studies.study_runs import runner_in, tiny


def test_the_control_shifts_as_far_as_spectra_of_many_features_do():
    controls = c6.controls(c6.get_config("smoke"))
    shift = np.mean(controls[0].primaries[0].values)
    limit = np.log2(best_step(20, 4) / best_step(20, 40))
    assert shift == pytest.approx(limit, abs=0.35)  # 4 features are not many


@pytest.mark.exhaustive
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c6.get_config("laptop"))
    config.experiment.prune.update(levels=1)
    config.experiment.control_levels = (1,)
    config.study.update(steps=(10, 20), halves=(-7, -5), most=0, curved=1, examples=32)
    with runner_in(tmp_path) as runner:
        evidence = c6.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all(), part.name
    assert [len(part.values) for part in evidence.primaries] == [2, 2]
    # Ladders of a level, with a control when short; then 3 and 2 arms at 3 rates.
    assert evidence.member_steps == 2 * (10 * 3 + 20 * 2 + 10 * 3 * 3 + 20 * 2 * 3)
    (tmp_path / "rows").write_bytes(parquet_bytes(evidence.rows))
    c6.draw(read_parquet(tmp_path / "rows"))
