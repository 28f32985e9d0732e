"""Our Lanczos against matfree's, which has no guard against an exhausted Krylov space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.landscape import lanczos
from lth_jax.landscape.tridiagonal import ritz

matfree = pytest.importorskip("matfree", reason="matfree is not installed")

from matfree import decomp, eig  # noqa: E402

KEY = jax.random.key(0)
START = np.random.default_rng(1).normal(size=100).astype(np.float32)


def symmetric(eigenvalues):
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 100)))
    return jnp.asarray((q * eigenvalues) @ q.T, jnp.float32)


def theirs(matrix, steps):
    partial = eig.eigh_partial(decomp.tridiag_sym(steps, reortho="full"))
    return np.asarray(partial(lambda v: matrix @ v, jnp.asarray(START))[0])


def ours(matrix, steps):
    found = lanczos.iterate(jax.jit(lambda v: matrix @ v), jnp.asarray(START), KEY, steps=steps)
    return ritz(found.found).values


@pytest.mark.slow
def test_they_agree_on_a_matrix_of_full_rank():
    matrix = symmetric(np.linspace(-1, 3, 100))
    np.testing.assert_allclose(ours(matrix, 32), theirs(matrix, 32), atol=1e-5)
