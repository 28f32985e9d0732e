"""Tasks whose members learn from teachers, or with groups: the targets of a batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.population import Task, initial
from lth_jax.population.groups import weigh_groups
from lth_jax.population.losses import distillation
from lth_jax.population.teachers import with_own_teachers
from lth_jax.types import Batch, Splits

N, CLASSES = 12, 3
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % CLASSES


def task(share=0):
    data = Splits(*(Batch(jnp.asarray(X), jnp.asarray(Y)),) * 3)
    return Task(
        nn.Dense(CLASSES),
        data,
        optimizer=optax.sgd(0.1),
        batch_size=2,
        steps=2,
        hyper={"label_smoothing": 0.0},
        examples_per_replicate=share,
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


@pytest.mark.parametrize("share", [0, 4])
def test_each_replicate_has_its_own_teachers_answers(share):
    rows, replicate = np.array([5, 7]), 1  # in a share, rows are those of the whole data set
    answers = np.random.default_rng(1).normal(size=(2, 3 * (share or N), CLASSES))
    own = with_own_teachers(task(share), answers)
    found = shown(own, rows, replicate=replicate, lesson=1, distillation=0.7, temperature=2.0)
    np.testing.assert_array_equal(found.x, X[rows])
    np.testing.assert_array_equal(found.y.labels, np.eye(CLASSES)[Y[rows]])
    first = 0 if share else replicate * N
    np.testing.assert_allclose(found.y.logits[0], answers[1, first + rows], rtol=1e-6)
    assert (
        own.trainer.objective is distillation
        and found.y.weight.tolist() == [pytest.approx(0.7)] * 2
    )


def test_groups_are_those_of_the_rows():
    groups = Y == 0
    found = shown(
        weigh_groups(task(), groups.astype(int), 2), [3, 4], replicate=0, balance=1.0, sharpness=3.0
    ).y
    assert found.groups.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert (float(found.balance), float(found.sharpness)) == (1.0, 3.0)
