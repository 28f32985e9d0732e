"""Every network by its config name: it is built and takes a training step, by shapes alone."""

import functools

import jax
import jax.numpy as jnp
import pytest

from experiments import build, checks, trainers
from experiments.configs import base
from lth_jax import trees
from lth_jax.cli.programs import UserError
from lth_jax.data import Dataset
from lth_jax.models import NETWORKS
from lth_jax.population.segment import init_member, train_step
from lth_jax.types import Batch
from tests.thinning import sampled

LARGE = ("resnet18_imagenet", "resnet50", "vit_tiny", "vit_small", "vit_base", "mixer_small")
FAST = ("gru", "transformer_decoder", "vgg")


def config(name, **options):
    experiment = base.ladder().experiment
    experiment.model.name = name
    experiment.model.options = options
    checks.check(experiment)
    return experiment


@pytest.mark.parametrize("name", [*FAST, *sampled([n for n in NETWORKS if n not in FAST], 2)])
def test_a_network_takes_a_step(name):
    experiment = config(name, **{"every_step": False} if "decoder" in name else {})
    experiment.train.batch_size = 2
    x = jnp.zeros((2, 224, 224, 3) if name in LARGE else (2, 32, 32, 3))
    batch = Batch(x, jnp.zeros(2, jnp.int32))
    trainer = trainers.task(
        experiment, Dataset("zeros", *[batch] * 3, classes=10, fingerprint="")
    ).trainer
    make = functools.partial(init_member, trainer, hyper=trainers.hyper(experiment), example=x)
    member = jax.eval_shape(make, jax.random.key(0), jax.random.key(1))
    step = functools.partial(train_step, trainer)
    after, info = jax.eval_shape(step, member, batch, 0)
    assert info["train_loss"].shape == ()
    trees.check_same_structure("params", after.params, "before", member.params)
    trees.check_same_structure("state", after.state, "before", member.state)


def test_a_mistyped_network_is_named():
    with pytest.raises(UserError, match=r"`model.name`.*resnet20"):
        config("resnet2O")


def test_a_foreign_option_is_named():
    with pytest.raises(UserError, match=r"`model.options` of 'vgg' is 'depth'"):
        build.model(config("vgg", depth=16))
