"""The benchmark's ticket is trained, and its spectrum that of the Hessian written out by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import lth_jax as lth
from experiments.benchmarks import landscape_exact
from lth_jax.models import MLP
from lth_jax.types import Batch

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
IMAGES = Batch(jnp.asarray(X), jnp.asarray(np.argmax(X[:, :3], axis=1)))
SETTINGS = {"density": 0.25, "rounds": 2, "steps": 60}


@pytest.fixture(scope="module")
def found():
    network = landscape_exact.Network(MLP((8, 3)))
    return network, *landscape_exact.ticket(network, IMAGES, jax.random.key(0), **SETTINGS)


def test_the_ticket_has_its_density_and_is_trained(found):
    network, params, mask = found
    initial = network.init(jax.random.key(0), IMAGES.x[:1])
    assert int(lth.count_kept(mask, lth.prunable_leaves(initial))) == (4 * 8 + 8 * 3) // 4
    jax.tree.map(lambda p, m: np.testing.assert_array_equal(p[~m], 0), params, mask)
    start = network.loss(lth.apply_mask(mask, initial), IMAGES)
    assert network.loss(params, IMAGES) < start - 0.03


def test_the_spectrum_is_that_of_its_examples(found):
    network, params, mask = found
    row = landscape_exact.exact_row(MLP((8, 3)), IMAGES, examples=50, **SETTINGS)
    chosen = np.random.default_rng(0).permutation(120)[:50]
    subset = Batch(IMAGES.x[chosen], IMAGES.y[chosen])
    flat, unravel = ravel_pytree(params)
    kept = np.flatnonzero(ravel_pytree(mask)[0])
    hessian = jax.jit(jax.hessian(lambda v: network.loss(unravel(v), subset)))(flat)
    exact = np.linalg.eigvalsh(np.asarray(hessian, np.float64)[np.ix_(kept, kept)])
    assert row["case"].startswith(f"exact spectrum of a retrained ticket, {len(kept)} weights")
    np.testing.assert_allclose(row["largest"], exact[:-17:-1], atol=1e-5)
    np.testing.assert_allclose(row["smallest"], exact[:16], atol=1e-5)
