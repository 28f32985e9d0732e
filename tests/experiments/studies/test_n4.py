"""N4: its data, its small networks, and its numbers are those of the protocol."""

import jax
import numpy as np
import pytest

from experiments import networks
from experiments.studies import n4_reconstruction as n4
from experiments.studies.common import without_training_metrics
from lth_jax import trees
from lth_jax.analysis.one_shot import mean_test_losses, one_shot, one_shot_by_loss
from tests.experiments.studies.study_runs import runner_in


def test_windows_have_the_next_symbols_as_targets_and_an_order_of_their_own():
    made = n4.passages(window=8, data_seed=3, limit=400)
    for x, y in made.values():
        assert x.shape == y.shape and x.shape[1] == 8
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    other = n4.passages(window=8, data_seed=4, limit=400)
    assert not np.array_equal(made["test"][0], other["test"][0])
    everything = [
        np.sort(np.concatenate([m["train"][0], m["test"][0]]), axis=0) for m in (made, other)
    ]
    np.testing.assert_array_equal(*everything)


def weights(experiment):
    """The number of weights in matrices."""
    x = jax.ShapeDtypeStruct((1, 24), np.int32)
    params, _ = jax.eval_shape(networks.model(experiment).init, jax.random.key(0), x)
    named = trees.to_named(params)
    return sum(leaf.size for name, leaf in named.items() if name.endswith("kernel"))


@pytest.mark.parametrize("size", ["laptop", "full"])
def test_small_networks_have_the_weights_of_the_pruned_ones(size):
    config = n4.get_config(size)
    whole = weights(config.experiment)
    for fraction, (width, hidden) in zip(config.study.fractions, config.study.small, strict=True):
        options = {"model__options__width": width, "model__options__hidden": hidden}
        small = weights(n4.vary(config, **options).experiment)
        assert small == pytest.approx(fraction * whole, rel=0.02)


def test_values_are_in_percent_of_what_training_gained():
    study = n4.get_config().study
    arms = dict.fromkeys(n4.PROTOCOL.arms, 3.3) | {n4.DENSE: 3.0, n4.MAGNITUDE: 3.4, "alps": 3.2}
    arms = {arm: np.full(3, bits) for arm, bits in arms.items()}
    after = dict.fromkeys(n4.targets_of(study), arms)
    once = {(t, m): np.full(3, 4.0 - (m == "alps")) for t in after for m in study.methods}
    evidence = n4.evidence(study, 5.0, once, after)  # dense networks gain two bits
    found = {part.cell: part.values[0] for part in evidence.primaries}
    assert found["2:4, alps"] == pytest.approx(10.0) and found["30 %, refit"] == pytest.approx(5.0)
    assert len(found) == 20
    beside = {part.name: part.values[0] for part in evidence.secondary}
    assert beside["50 %, at once: magnitude − alps"] == pytest.approx(50.0)
    assert beside["50 %: ticket − alps"] == pytest.approx(5.0)


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = without_training_metrics(n4.get_config("laptop"))
    config.experiment.replicates = 2
    config.experiment.model.options.update(width=8, hidden=8)
    config.experiment.data.options.update(limit=4000, window=8)
    config.experiment.data.validation = 40
    config.experiment.train.update(steps=16, eval_every=16)
    config.study.update(
        further=8, calibration=64, methods=("magnitude", "alps", "wood_fisher"), patterns=((2, 4),),
        fractions=(0.5,), small=((4, 8),),
    )  # fmt: skip
    with runner_in(tmp_path) as runner:
        evidence = n4.gather(runner, config)
        dense = runner.networks("N4", n4.dense_only(config), "dense", 0)
        trained, task = [one.params for one in dense], runner.task(config)
        losses = mean_test_losses(task, trained)
        kernels = [name for name in trained[0] if name.endswith("kernel")]
        [(_, by_loss)] = one_shot_by_loss(task, trained[:1], 64, kernels, density=0.5)
        _, by_layer = one_shot(task, trained[0], n4.METHODS["alps"], 64, {"density": 0.5})
    for mask in (by_loss, by_layer):
        assert {name for name, kept in mask.items() if not kept.all()} == set(kernels)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    cells = [
        f"{target}, {method}" for target in ("50 %", "2:4") for method in ("alps", "wood_fisher")
    ]
    assert [part.cell for part in evidence.primaries] == cells
    after = [row for row in evidence.rows if row["metric"] == "2:4, trained on"]
    found = [row["value"] for row in after if row["arm"] == "dense"]
    np.testing.assert_allclose(found, losses / np.log(2), rtol=1e-5)
    n4.draw(evidence.rows)
