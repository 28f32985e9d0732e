"""Tasks with groups: the targets of a batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lth_jax.population import Task, initial
from lth_jax.population.groups import weigh_groups
from lth_jax.types import Batch, Splits

N, CLASSES = 12, 3
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % CLASSES


def task():
    data = Splits(*(Batch(jnp.asarray(X), jnp.asarray(Y)),) * 3)
    return Task(
        nn.Dense(CLASSES),
        data,
        optimizer=optax.sgd(0.1),
        batch_size=2,
        steps=2,
    )


def shown(own, rows, **hyper):
    """The batch that a member with these numbers is shown."""
    member = jax.tree.map(lambda leaf: leaf[0], initial(task(), 1))
    numbers = {name: jnp.float32(value) for name, value in hyper.items()}
    numbers["replicate"] = jnp.int32(hyper["replicate"])
    member = member._replace(hyper=member.hyper | numbers)
    trainer, key = own.trainer, jax.random.key(0)
    seen = own.data.train, jnp.asarray(rows), member, trainer.constants
    return trainer.transform_batch(key, *seen)


def test_groups_are_those_of_the_rows():
    groups = Y == 0
    found = shown(
        weigh_groups(task(), groups.astype(int), 2), [3, 4], replicate=0, balance=1.0, sharpness=3.0
    ).y
    assert found.groups.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert (float(found.balance), float(found.sharpness)) == (1.0, 3.0)
