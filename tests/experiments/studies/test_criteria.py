"""CRITERIA: all masks keep the same number of weights, and seeds do not choose for themselves."""

import jax
import numpy as np
import pytest

from experiments import build
from experiments.studies import criteria_ranking as ranking
from lth_jax import trees
from lth_jax.data import Dataset
from lth_jax.lottery import Start
from lth_jax.types import Batch
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.parametrize("name", ranking.get_config("smoke").study.criteria)
@pytest.mark.slow
def test_every_criterion_keeps_as_many_weights(name):
    config = tiny(ranking.get_config("laptop"))
    config.study.update(rounds=5, examples=20)
    rng = np.random.default_rng(0)
    split = Batch(rng.normal(size=(128, 40)).astype(np.float32), rng.integers(10, size=128))
    data = Dataset("made", split, split, split, classes=10, fingerprint="")
    task = build.task(config.experiment, data)
    keys = [jax.random.key(i) for i in range(2)]
    points = [trees.to_named(task.trainer.model.init(key, split.x[:1])[0]) for key in keys]
    origins = [Start(points[i], {}, keys[i], replicate=i) for i in range(2)]
    for start in ranking.masked_starts(
        task,
        config,
        name,
        0.25,
        origins,
        [Start(p, {}, k) for p, k in zip(points, keys, strict=True)],
    ):
        kept = sum(mask.sum() for mask in start.mask.values() if mask.ndim == 2)
        assert kept == pytest.approx(0.25 * 744, abs=2)


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(ranking.get_config("laptop"))
    config.experiment.prune.levels = 2
    config.experiment.control_levels = (1,)
    config.study.update(rates=(1e-2,), examples=20, rounds=3, levels=(1, 2))
    with runner_in(tmp_path) as runner:
        evidence = ranking.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    assert [part.cell for part in evidence.primaries] == ["density 0.47"] * 2 + ["density 0.22"] * 2
    assert {row["arm"] for row in evidence.rows} >= set(ranking.PROTOCOL.arms)
    ranking.draw(evidence.rows)
