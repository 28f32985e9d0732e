"""Losses that weigh groups, against their definitions."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.population import losses
from lth_jax.population.groups import Grouped, add_groups, group_robust
from lth_jax.types import Batch

LOGITS = jax.random.normal(jax.random.key(0), (9, 4))
LABELS = jnp.arange(9) % 4
GROUP = jnp.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
EACH = np.asarray(losses.cross_entropy(LOGITS, LABELS))
MEANS = np.array([EACH[:6].mean(), EACH[6:].mean()])


def mean_loss(logits, balance, sharpness, groups=GROUP, count=2):
    one_hot = jax.nn.one_hot(groups, count)
    numbers = jnp.float32(balance), jnp.float32(sharpness)
    return jnp.mean(group_robust(logits, Grouped(LABELS, one_hot, *numbers)))


def test_examples_alike_is_the_plain_mean():
    assert mean_loss(LOGITS, 0, 0) == pytest.approx(EACH.mean(), rel=1e-6)


def test_groups_alike_is_the_mean_of_their_means():
    assert mean_loss(LOGITS, 1, 0) == pytest.approx(MEANS.mean(), rel=1e-6)


def test_the_sharpest_is_the_worst_group():
    assert mean_loss(LOGITS, 1, 1e4) == pytest.approx(MEANS.max(), rel=1e-6)


def test_between_them_groups_count_by_their_losses():
    q = np.exp(2 * MEANS) / np.exp(2 * MEANS).sum()
    assert mean_loss(LOGITS, 1, 2) == pytest.approx(q @ MEANS, rel=1e-6)


def test_a_group_that_does_not_occur_counts_for_nothing():
    assert mean_loss(LOGITS, 1, 1e4, count=3) == pytest.approx(MEANS.max(), rel=1e-6)


def test_no_gradient_flows_through_the_weights():
    def fixed(logits):
        each = losses.cross_entropy(logits, LABELS)
        q = np.exp(2 * MEANS) / np.exp(2 * MEANS).sum()
        return q[0] * jnp.mean(each[:6]) + q[1] * jnp.mean(each[6:])

    found, expected = jax.grad(mean_loss)(LOGITS, 1, 2), jax.grad(fixed)(LOGITS)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        assert (
            group_robust(
                LOGITS, Grouped(LABELS, jax.nn.one_hot(GROUP, 2), jnp.float32(1), jnp.float32(1))
            ).dtype
            == np.float32
        )


def test_a_batch_has_the_groups_of_its_rows():
    member, rows = SimpleNamespace(hyper={"balance": 1.0, "sharpness": 0.5}), jnp.array([6, 0])
    batch = Batch(jnp.zeros((2, 3)), LABELS[rows])
    shown = add_groups(2)(None, batch, rows, member, {"groups": GROUP}).y
    np.testing.assert_array_equal(shown.groups, [[0, 1], [1, 0]])
    assert (shown.balance, shown.sharpness) == (1.0, 0.5)
