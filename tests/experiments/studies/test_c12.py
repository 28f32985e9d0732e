"""C12: masks are transferred to the layers that they belong to."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import c12_transfer as c12
from experiments.studies.common import without_training_metrics
from tests.experiments.studies.study_runs import runner_in, tiny


def test_shuffles_keep_the_weights_of_every_input_and_arms_differ_in_one_layer():
    rng = np.random.default_rng(0)
    shapes = {"Conv_0/kernel": (3, 1, 8), "Conv_1/kernel": (3, 8, 8), "Dense_0/kernel": (8, 10)}
    other = [{leaf: rng.random(shape) < 0.4 for leaf, shape in shapes.items()}]
    dense = [{c12.BLOCK.get(leaf, leaf): np.ones(shape, bool) for leaf, shape in shapes.items()}]
    dense[0]["Dense_0/bias"] = np.ones(10, bool)
    masks = {arm: one[0] for arm, one in c12.masks_of(dense, dense, other, 0).items()}
    assert masks.keys() == set(c12.PROTOCOL.arms) - {"layer 4"}
    for i, leaf in enumerate(shapes, 1):
        there = c12.BLOCK.get(leaf, leaf)
        kept = other[0][leaf]
        shuffled = masks["shuffle"][there]
        np.testing.assert_array_equal(shuffled.sum(axis=-1), kept.sum(axis=-1))
        assert (shuffled != kept).any()
        for arm in (f"layer {i}", c12.ALL):
            np.testing.assert_array_equal(masks[arm][there], kept)
        np.testing.assert_array_equal(masks[f"layer {i % 3 + 1}"][there], shuffled)
    assert masks[c12.ALL].keys() == dense[0].keys()


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c12.get_config("laptop"))
    options = {
        "experiment": {"width": 12},
        "plain": {"features": (12, 12, 10)},
        "conv": {"blocks": (1,), "width": 4},
        "conv_plain": {"stages": ((4, 4, 4),)},
    }
    for name, few in options.items():
        experiment = config[name]
        experiment.update(replicates=2, data=config.experiment.data)
        experiment.model.options = ConfigDict(few)
        experiment.train.update(config.experiment.train)
        experiment.prune.levels = 1
    config.study.rates = (1e-2,)
    with runner_in(tmp_path) as runner:
        evidence = c12.gather(runner, config)
        trained = without_training_metrics(config)
        cells = [ConfigDict({"experiment": trained[name]}) for name in ("experiment", "plain")]
        here, there = (runner.origins("C12-MLP", cell) for cell in cells)
    for a, b in zip(here, there, strict=True):  # the same initial values: they differ in the skip
        for leaf in a.params:
            np.testing.assert_array_equal(a.params[leaf], b.params[leaf])
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    assert len({part.cell for part in evidence.primaries}) == 4 + 5  # of two parts each
    assert len(evidence.primaries) == 2 * (4 + 5)
    assert {row["arm"] for row in evidence.rows} == set(c12.PROTOCOL.arms)
    c12.draw(evidence.rows)
