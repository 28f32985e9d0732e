"""The benchmark's ticket is trained, and its spectrum that of the Hessian written out by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import lth_jax as lth
from experiments.benchmarks import landscape_exact
from lth_jax import trees
from lth_jax.models import MLP

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(size=(320, 4)).astype(np.float32)
IMAGES = X, np.argmax(X[:, :3], axis=1)
SETTINGS = {"density": 0.25, "rounds": 2, "steps": 60}


@pytest.fixture(scope="module")
def found():
    return landscape_exact.ticket(MLP((8, 3)), IMAGES, **SETTINGS)


def test_the_ticket_has_its_density_and_is_trained(found):
    task, ticket = found
    assert int(lth.count_kept(ticket.mask, ticket.prunable)) == (4 * 8 + 8 * 3) // 4
    jax.tree.map(lambda p, m: np.testing.assert_array_equal(p[~m], 0), ticket.trained, ticket.mask)
    loss, train = landscape_exact.mean_loss(task), task.data.train
    assert loss(ticket.trained, train) < loss(ticket.initial, train) - 0.01


def test_the_spectrum_is_that_of_its_examples(found):
    task, ticket = found
    row = landscape_exact.exact_row(MLP((8, 3)), IMAGES, examples=50, **SETTINGS)
    chosen = np.random.default_rng(0).permutation(len(task.data.train.y))[:50]
    subset = jax.tree.map(jnp.asarray, trees.index(task.data.train, chosen))
    flat, unravel = ravel_pytree(ticket.trained)
    kept = np.flatnonzero(ravel_pytree(ticket.mask)[0])
    loss = landscape_exact.mean_loss(task)
    hessian = jax.jit(jax.hessian(lambda v: loss(unravel(v), subset)))(flat)
    exact = np.linalg.eigvalsh(np.asarray(hessian, np.float64)[np.ix_(kept, kept)])
    assert row["case"].startswith(f"exact spectrum of a retrained ticket, {len(kept)} weights")
    np.testing.assert_allclose(row["largest"], exact[:-17:-1], atol=1e-5)
    np.testing.assert_allclose(row["smallest"], exact[:16], atol=1e-5)
