"""ResNet-50 on ImageNet: a traced step at full size, and training on a small made data set."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import build, checks, literature, runner, trainers
from experiments.configs.literature import resnet50
from lth_jax import keys, trees
from lth_jax.cli.programs import UserError
from lth_jax.data import OnDisk
from lth_jax.lottery import running
from lth_jax.population import OnHost
from lth_jax.population import segment as segments
from lth_jax.report import read_run
from lth_jax.store import Store
from lth_jax.types import Batch, Splits
from tests.data import made_imagenet
from tests.experiments import tiny

TRAIN, TEST = 1_281_167, 50_000
CONVOLUTIONS = 23_454_912  # weights, as in the source


def at_full_shape(count):
    images = jax.ShapeDtypeStruct((count, 224, 224, 3), jnp.uint8)
    return Batch(images, jax.ShapeDtypeStruct((count,), jnp.int32))


@pytest.mark.slow
def test_one_step_traces_at_the_shapes_of_the_source():
    config = resnet50.get_config("full")
    splits = Splits(at_full_shape(TRAIN), at_full_shape(0), at_full_shape(TEST))
    loaded = SimpleNamespace(train=splits.train, classes=1000)
    found = checks.check_network(config, loaded)
    assert found.members == 3 * 19 and found.member > 4 * 25_557_032
    task = trainers.task(config.experiment, loaded, splits)
    key, example = keys.from_seed(0), jnp.zeros((1, 224, 224, 3), jnp.uint8)
    member = jax.eval_shape(
        lambda key: segments.init_member(task.trainer, key, key, task.hyper, example), key
    )
    block = segments.Block(jax.ShapeDtypeStruct((2048,), jnp.int32), at_full_shape(2048))

    def step(member, block):
        batch = segments.training_batch(task.trainer, member, block, jnp.arange(2048), 0)
        return batch, segments.train_step(task.trainer, member, batch, 0)

    batch, (after, info) = jax.eval_shape(step, member, block)
    assert batch.x.shape == (2048, 224, 224, 3) and batch.x.dtype == jnp.uint8
    assert after == member and info["train_loss"].shape == ()


def test_only_convolutions_are_pruned():
    experiment = resnet50.get_config("full").experiment
    params, _ = jax.eval_shape(
        build.model(experiment).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
    _, _, prunable = build._what_competes(experiment.prune, params, None)
    kept = {n: leaf.size for n, leaf in trees.to_named(params).items() if leaf.ndim == 4}
    assert sum(kept.values()) == CONVOLUTIONS
    assert trees.to_named(prunable) == {n: n in kept for n in trees.to_named(params)}
    experiment.prune.groups = ("*Conv_*", "Dens_*")
    with pytest.raises(ValueError, match=r"`patterns` is .*'Dens_\*'.* each must match"):
        build._what_competes(experiment.prune, params, None)


def test_the_schedule_begins_again_at_the_rewind_step():
    experiment = resnet50.get_config("full").experiment
    rate, step = trainers.learning_rate(experiment), experiment.rewind.step
    assert step == 16_000 and [float(rate(i)) for i in (0, step - 1, step)] == [1, 1, 0]


@pytest.fixture
def config(tmp_path):
    made_imagenet.write(tmp_path / "manual")
    config = resnet50.get_config("full")
    config.machine = tiny.get_config().machine
    config.machine.update(workdir=str(tmp_path / "runs"), progress=False, data_placement="host")
    config.machine.manual_dir = str(tmp_path / "manual")
    experiment = config.experiment
    experiment.replicates = 2
    experiment.data.options = ConfigDict({"size": 32})
    experiment.model.options = ConfigDict({"blocks": (1,), "width": 2, "classes": 4})
    experiment.train.update(steps=2, eval_every=1, batch_size=4, crop=4)
    experiment.rewind.step = 1
    experiment.prune.levels = 1
    return config


def test_a_config_without_the_images_is_refused(config, tmp_path):
    config.machine.manual_dir = ""
    with pytest.raises(UserError, match=r"`machine\.data_dir` must contain .*imagenet2012"):
        build.dataset(config)
    assert literature.main(["resnet50:full", "--dry_run", f"--root={tmp_path}"]) == 2


@pytest.mark.slow
def test_images_train_as_bytes_from_disk(config):
    loaded = build.dataset(config)
    assert isinstance(loaded.train.x, OnDisk)
    task = trainers.task(config.experiment, loaded)
    assert isinstance(task.data.train, OnHost) and running.data_placement(task) == "host"
    examples = segments.Block(jnp.arange(12), Batch(*(leaf[:] for leaf in loaded.train)))

    @jax.jit
    def outputs(key, examples):
        member = segments.init_member(task.trainer, key, key, task.hyper, task.example)
        batch = segments.training_batch(task.trainer, member, examples, jnp.arange(4), 0)
        apply = partial(task.trainer.model.apply, member.params, member.state, train=False)
        return apply(batch.x)[0], apply(jnp.float32(batch.x) / 255)[0]

    of_bytes, of_floats = outputs(keys.from_seed(0), examples)
    assert np.ptp(of_bytes) > 0.01
    np.testing.assert_array_equal(of_bytes, of_floats)


@pytest.mark.slow
def test_a_made_data_set_trains_two_steps(config):
    folder = runner.run(config, ["python"])
    dense, ticket = read_run(Store(folder.parent), folder).levels
    assert np.isfinite(ticket.results["test_accuracy_final"]).all() and len(ticket.members) == 2
    assert ticket.density == pytest.approx(0.8, abs=0.01) and dense.density == 1
    assert ticket.leaf_sizes and all("Conv_" in name for name in ticket.leaf_sizes)
    assert '"data": "host"' in (folder / "env.json").read_text()
