"""The controls through the pipeline find a planted ticket, and catch broken stages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from experiments.studies import pipeline
from lth_jax.measures import judge
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.pruning.methods import Inputs, static
from tests.experiments.studies.study_runs import runner_in
from tests.experiments.studies.test_controls import POWER, deviations


def test_the_broken_criterion_ignores_the_values():
    params = {"kernel": jnp.array([[0.1, 9.0], [5.0, 0.2]])}
    scores = pipeline.by_position(params, None)["kernel"].ravel()
    assert np.argsort(-scores).tolist() == [0, 1, 2, 3]


def test_the_broken_method_trains_pruned_weights():
    params, mask = {"w": jnp.array([2.0, 0.0])}, {"w": jnp.array([True, False])}
    inputs, ends = Inputs(mask, jnp.int32(1), jax.random.key(0)), {}
    for make in (static, pipeline.unmasked):
        method = make(prunable={"w": True})
        tx = method.transform(optax.sgd(1.0), inputs)
        updates, state = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
        end, _ = method.final(optax.apply_updates(params, updates), state)
        ends[method.name] = end["w"].tolist()
    assert ends == {"static": [1.0, 0.0], "unmasked": [1.0, -1.0]}


def test_every_seed_has_examples_of_its_own():
    experiment = pipeline.get_config("laptop").experiment
    needed = experiment.replicates * experiment.train.share + experiment.data.validation
    assert needed <= experiment.data.options.train


@pytest.mark.slow
def test_the_controls_are_whole(tmp_path):
    config = pipeline.get_config("laptop")
    config.experiment.replicates = 2
    config.experiment.train.update(steps=4, eval_every=4, batch_size=8, share=40)
    config.experiment.data.options.update(train=300, test=60)
    with runner_in(tmp_path) as runner:
        controls = pipeline.pipeline_controls(runner, config)
    assert len({control.name for control in controls}) == len(controls) == 7
    assert {one.expected for one in controls} == {SUPPORTED, NOT_SUPPORTED, REVERSED}
    for part in (part for control in controls for part in control.primaries):
        assert len(part.values) == 2 and np.isfinite(part.values).all(), part.name


@pytest.mark.exhaustive
def test_the_controls_are_judged_right_and_would_be_on_other_seeds(tmp_path):
    with runner_in(tmp_path) as runner:
        runner.machine.chunk = 96
        controls = pipeline.pipeline_controls(runner, pipeline.get_config("laptop"))
    for control, found in zip(
        controls, judge.judged(controls, np.random.default_rng(0)), strict=True
    ):
        assert found["got"] == found["expected"], control.name
        margins = [deviations(part, control.expected) for part in control.primaries]
        margin = min(margins) if control.expected == SUPPORTED else max(margins)
        assert special.ndtr(margin) >= POWER, control.name
