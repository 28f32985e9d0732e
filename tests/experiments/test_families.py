"""The families' configs and the training variants: built, and one segment lowered, by shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from experiments import build, checks, measure, networks, runner, trainers
from experiments.configs import base, families
from lth_jax import store as stores
from lth_jax.cli.programs import UserError
from lth_jax.data import Dataset
from lth_jax.population import losses
from lth_jax.population.averaging import average_of
from lth_jax.population.segment import init_member, train_step, training_batch
from lth_jax.report import behaviour, read_run
from lth_jax.types import Batch


def step_of(experiment, loaded):
    """The shapes after one step on the first examples."""
    examples = jax.tree.map(jnp.asarray, loaded.train)
    trainer = trainers.task(experiment, loaded).trainer

    def one(key):
        member = init_member(trainer, key, key, trainers.hyper(experiment), examples.x[:1])
        batch = training_batch(trainer, member, examples, jnp.arange(4), 0)
        return train_step(trainer, member, batch, 0)[1]

    return trainer, jax.eval_shape(one, jax.random.key(0))


SLOW = ("vision", "language", "addition")  # to compile


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(f, marks=[pytest.mark.slow] * (f in SLOW))
        for f in families.FAMILIES
        if f != "mnist"  # whose files only their user has
    ],
)
def test_a_family_takes_a_step_on_its_data(family, tmp_path):
    config = families.get_config(family)
    config.machine.data_dir = str(tmp_path)
    experiment = config.experiment
    if family in ("recurrent", "tabular", "planted"):  # as many as the rest of the test needs
        experiment.data.validation = 10
        experiment.data.options.update(train=200, test=10)
    checks.check(experiment)
    loaded = build.dataset(config)
    trainer, info = step_of(experiment, loaded)
    assert info["train_loss"].shape == ()
    outputs = networks.shapes(experiment, loaded).outputs.shape[-1]
    assert outputs == loaded.classes
    assert ("bits" in trainer.metrics) == (family == "language")


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match=r"`family` is 'sound';.* must be one of: .*vision"):
        families.get_config("sound")


def made(shape):
    """A data set of zeros."""
    examples = Batch(np.zeros((64, *shape), np.float32), np.zeros(64, np.int32))
    return Dataset("zeros", examples, examples, examples, classes=10, fingerprint="")


IMAGES = made((8, 8, 1))


def experiment_with(**train):
    experiment = base.ladder().experiment
    experiment.train.update(**train)
    checks.check(experiment)
    return experiment


@pytest.mark.parametrize(
    ("train", "objective"),
    [
        ({}, None),
        ({"crop": 2, "flip": True, "label_noise": 0.2}, None),
        ({"crop_area": 0.08, "label_noise": 0.2}, None),
        ({"label_smoothing": 0.1}, losses.soft_cross_entropy),
        ({"mixup": 0.2, "cutmix": 1.0, "label_noise": 0.1}, losses.soft_cross_entropy),
    ],
)
def test_variants_reach_the_trainer_and_its_members(train, objective):
    experiment = experiment_with(**train)
    trainer, info = step_of(experiment, IMAGES)
    assert trainer.objective is objective and info["train_loss"].shape == ()
    numbers = {name: train[name] for name in train if name not in ("crop", "crop_area", "flip")}
    assert numbers.items() <= trainers.hyper(experiment).items()


@pytest.mark.slow
def test_a_member_drops_at_its_own_rate():
    def stepped(built, own):
        experiment = base.ladder().experiment
        experiment.model.options = ConfigDict({"features": (16, 10), "dropout": built})
        trainer = trainers.task(experiment, IMAGES).trainer
        examples = jax.tree.map(jnp.asarray, IMAGES.train)
        examples = examples._replace(x=examples.x + 1)
        numbers = trainers.hyper(experiment) | {"dropout": own}
        key = jax.random.key(0)
        member = init_member(trainer, key, key, numbers, examples.x[:1])
        return float(train_step(trainer, member, examples, 0)[1]["train_loss"])

    assert stepped(0.1, 0.5) == pytest.approx(stepped(0.5, 0.5), rel=1e-6)
    assert stepped(0.1, 0.5) != pytest.approx(stepped(0.1, 0.1), rel=1e-3)


def test_a_chance_to_drop_lies_below_1():
    experiment = base.ladder().experiment
    experiment.model.options.dropout = 1.0
    with pytest.raises(
        UserError, match=r"`model.options.dropout` is 1.0; it must be a number in \[0, 1\)"
    ):
        trainers.task(experiment, IMAGES)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"crop": -1}, "`train.crop` is -1; it must be an integer in 0 …"),
        ({"crop_area": 1.5}, r"`train.crop_area` is 1.5; it must be a number in \[0, 1\]"),
        ({"mixup": -0.5}, "`train.mixup` is -0.5; it must be a number in"),
        ({"label_noise": 1.5}, r"`train.label_noise` is 1.5; it must be a number in \[0, 1\]"),
    ],
)
def test_bad_strengths_are_refused(train, message):
    with pytest.raises(UserError, match=message):
        experiment_with(**train)


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_products_of_a_step_have_the_precision_of_the_config(precision):
    trainer = trainers.task(experiment_with(matmul_precision=precision), IMAGES).trainer
    examples = jax.tree.map(jnp.asarray, IMAGES.train)
    key = jax.random.key(0)
    member = jax.eval_shape(
        lambda key: init_member(trainer, key, key, {"learning_rate": 0.1}, examples.x[:1]), key
    )
    step = jax.jit(lambda member: train_step(trainer, member, examples, 0))
    text = step.trace(member).lower(lowering_platforms=("cuda", "tpu")).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    full = ["[HIGHEST, HIGHEST]" in line for line in products]
    assert len(full) > 3 and all(full) == any(full) == (precision == "highest")


def test_crops_need_images_and_cutmix_images_or_signals():
    with pytest.raises(UserError, match=r"need images, but an input is \(5,\)"):
        trainers.task(experiment_with(crop=1), made((5,)))
    with pytest.raises(UserError, match=r"need images, but an input is \(5,\)"):
        trainers.task(experiment_with(crop_area=0.5), made((5,)))
    with pytest.raises(UserError, match=r"images or signals, but an input is \(5, 2\)"):
        trainers.task(experiment_with(cutmix=1.0), made((5, 2)))


def test_a_moving_average_has_its_decay():
    """The weights are −1, −2, …: their mean up to the window, then decay 1 − 1/window."""
    experiment = experiment_with(average={"start": 1, "every": 1, "window": 3})
    experiment.optimizer.update(name="sgd", momentum=0.0)
    numbers = trainers.hyper(experiment) | {"learning_rate": 1.0}
    tx, weight = trainers.make_optimizer(experiment)(numbers), jnp.float32(0)
    state, found, expected = tx.init(weight), [], []
    for step in range(8):
        updates, state = tx.update(jnp.float32(1), state, weight, step=jnp.int32(step))
        weight = optax.apply_updates(weight, updates)
        share = 1 / min(step + 1, 3)
        expected.append((1 - share) * (expected or [0.0])[-1] - share * (step + 1))
        found.append(float(average_of(state)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_step_schedule_falls_to_a_tenth_twice():
    experiment = base.ladder().experiment
    experiment.train.steps, experiment.optimizer.schedule = 100, "step"
    schedule = trainers.learning_rate(experiment)
    factors = [float(schedule(step)) for step in (0, 49, 51, 74, 76, 99)]
    np.testing.assert_allclose(factors, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_wanda_refuses_what_it_cannot_see(tmp_path):
    config = families.get_config("recurrent")
    config.machine.data_dir = str(tmp_path)
    experiment = config.experiment
    experiment.data.options.update(train=1000, test=10)
    experiment.prune.update(criterion="wanda", examples=8)
    task = build.task(experiment, build.dataset(config))
    with pytest.raises(UserError, match=r"'wanda', .* 'TiedLayer_0/recurrent_kernel' inside"):
        build.ladder(experiment, task)


def test_mnist_is_not_looked_for_elsewhere(tmp_path):
    config = families.get_config("mnist")
    config.machine.data_dir = str(tmp_path)
    with pytest.raises(UserError, match="manual_dir"):
        build.dataset(config)


def test_clipping_is_a_number_of_each_member():
    """Members that clip at norms of their own take one step under one program."""
    experiment = base.ladder().experiment
    experiment.optimizer.update(name="sgd", momentum=0.0, learning_rate=1.0, clip_norm=1.0)
    make, hyper = trainers.make_optimizer(experiment), trainers.hyper(experiment)
    mask, weights = jnp.ones(2, bool), jnp.zeros(2)

    @jax.jit
    @jax.vmap
    def step(clip):
        tx = make({**hyper, "clip_norm": clip})
        return tx.update(jnp.array([3.0, 4.0]), tx.init(weights), weights, mask=mask)[0]

    np.testing.assert_allclose(
        step(jnp.array([1.0, 2.5, 10.0])), [[-0.6, -0.8], [-1.5, -2], [-3, -4]], rtol=1e-6
    )


def trained(family, workdir, **experiment):
    """A finished run of a family's first replicate."""
    config = families.get_config(family)
    config.machine.workdir = str(workdir)
    config.experiment.update_from_flattened_dict({"replicates": 1, "controls": (), **experiment})
    return runner.run(config, [])


@pytest.mark.slow
def test_a_transformer_learns_to_add(tmp_path):
    folder = trained("addition", tmp_path, **{"prune.levels": 0})
    [level] = read_run(stores.Store(tmp_path), folder).levels
    assert level.results["test_accuracy_final"].tolist() == pytest.approx([1.0], abs=1e-6)


@pytest.mark.slow
def test_a_planted_ticket_is_found(tmp_path):
    folder = trained("planted", tmp_path, **{"prune.levels": 5})
    assert measure.main([folder.name, "--root", str(tmp_path)]) == 0
    scores = behaviour.read(stores.Store(tmp_path), folder).scores
    assert scores["recovered"][-1] > 0.75 > 0.5 > scores["recovered_by_chance"][-1]
