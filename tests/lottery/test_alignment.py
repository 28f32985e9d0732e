"""Lines between networks whose units were matched: landscape's `align` from structure's groups."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lth_jax import landscape
from lth_jax import structure as st
from lth_jax.models.adapters import from_linen
from lth_jax.models.layers import conv, glorot_normal

ALPHAS = np.linspace(0, 1, 9)
X = np.random.default_rng(0).normal(size=(16, 4, 4, 2)).astype(np.float32)


class Net(nn.Module):
    """Convolution, BatchNorm and two dense layers: groups of units that couple several leaves."""

    @nn.compact
    def __call__(self, x, *, train):
        x = conv(x, 6, glorot_normal)
        x = jnp.tanh(nn.BatchNorm(use_running_average=not train)(x))
        x = jnp.tanh(nn.Dense(7)(x.reshape(len(x), -1)))
        return nn.Dense(3)(x)


MODEL = from_linen(Net())


@pytest.fixture(scope="module")
def networks():
    """The groups, one network's parameters, another's, and the loss against the first's outputs."""
    init = jax.jit(MODEL.init)
    (params, state), (other, _) = (init(jax.random.key(seed), X) for seed in (0, 1))

    def predict(p, x):
        return MODEL.apply(p, state, x, train=False)[0]

    wanted = jax.jit(predict)(params, X)

    @jax.jit
    def loss(p):
        return jnp.mean((predict(p, X) - wanted) ** 2)

    return st.find_groups(predict, params, X[:1]), params, other, loss


def shuffled(found, params):
    rng = np.random.default_rng(3)
    return st.permute(found, params, {g.name: rng.permutation(g.units) for g in found.groups})


def test_a_permuted_copy_has_a_barrier_until_it_is_aligned(
    networks,
):
    found, params, _, loss = networks
    copied = shuffled(found, params)
    apart = landscape.along_line(loss, params, copied, ALPHAS)
    np.testing.assert_allclose([apart[0], apart[-1]], 0, atol=1e-9)  # the same function
    assert landscape.barrier(apart) > 0.02
    together = landscape.along_line(loss, params, copied, ALPHAS, align=partial(st.align, found))
    np.testing.assert_allclose(landscape.barrier(together), 0, atol=1e-9)


def test_a_permuted_copy_under_a_mask_is_aligned_too(networks):
    found, params, _, loss = networks
    rng = np.random.default_rng(1)
    sparse = jax.tree.map(lambda p: p * (rng.random(p.shape) < 0.5), params)
    together = landscape.along_line(
        loss, sparse, shuffled(found, sparse), ALPHAS, align=partial(st.align, found)
    )
    np.testing.assert_allclose(together, together[0], rtol=1e-5)


def test_aligning_preserves_the_ends_of_a_line_between_unrelated_networks(networks):
    found, params, other, loss = networks
    apart, near = (
        landscape.along_line(loss, params, other, ALPHAS, align=align)
        for align in (None, partial(st.align, found))
    )
    np.testing.assert_allclose(apart[jnp.array([0, -1])], near[jnp.array([0, -1])], rtol=1e-5)
    assert not np.allclose(apart[4], near[4], rtol=1e-3)
