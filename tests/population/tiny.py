"""A small network and its data, shared by the tests of training."""

import jax
import jax.numpy as jnp
import optax

from lth_jax.data import indices
from lth_jax.models import MLP, from_linen
from lth_jax.population import losses, segment
from lth_jax.types import Batch

STEPS, SIZE = 5, 48


def examples(key, shape, n=SIZE):
    kx, ky = jax.random.split(jax.random.key(key))
    return Batch(jax.random.normal(kx, (n, *shape)), jax.random.randint(ky, (n,), 0, 3))


def make_trainer(model, **changes):
    def order(key, step, steps):
        return indices(key, step, steps=steps, batch_size=8, size=SIZE)

    return segment.Trainer(
        model=from_linen(model),
        make_optimizer=lambda h: optax.adam(h["learning_rate"]),
        loss=losses.cross_entropy,
        metrics={"loss": losses.cross_entropy, "accuracy": losses.correct},
        schedule=optax.constant_schedule(1.0),
        order=order,
        eval_every=STEPS,
        eval_batch_size=20,
    )._replace(**changes)


TRAINER = make_trainer(MLP((8, 3)))
TRAIN, VALIDATION = examples(0, (6,)), examples(1, (6,), n=30)


def members_of(n, trainer=TRAINER, data=TRAIN, rates=None):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(7), i))(jnp.arange(n))
    rates = jnp.full(n, 1e-2) if rates is None else jnp.asarray(rates)

    def one(key, rate):
        return segment.init_member(trainer, key, key, {"learning_rate": rate}, data.x[:1])

    return jax.vmap(one)(keys, rates)


def pruned(members):
    mask = jax.tree.map(lambda m: m, members.mask)
    kernel = mask["Dense_0"]["kernel"]
    mask["Dense_0"]["kernel"] = jax.random.bernoulli(jax.random.key(3), 0.5, kernel.shape)
    return segment.masked_start(members._replace(mask=mask))


def records_of(members):
    """Unevaluated records of a population, with buffers of their own."""
    return jax.vmap(segment.init_record)(members)
