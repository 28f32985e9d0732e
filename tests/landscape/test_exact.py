"""The dense Hessian against `jax.hessian` of all weights, and Lanczos against the dense Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from lth_jax import landscape
from lth_jax.types import Batch

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def loss(params, batch):
    h = jnp.tanh(batch.x @ params["a"]["w"] + params["a"]["b"])
    log_p = jax.nn.log_softmax(h @ params["c"]["w"])
    return -jnp.mean(jnp.take_along_axis(log_p, batch.y[:, None], axis=1))


PARAMS = {"a": {"w": draw(0, 6, 5), "b": draw(1, 5)}, "c": {"w": draw(2, 5, 3)}}
DATA = Batch(draw(3, 11, 6), np.arange(11) % 3)
SPLIT = [Batch(DATA.x[:7], DATA.y[:7]), Batch(DATA.x[7:], DATA.y[7:])]
MASK = jax.tree.map(lambda p: draw(4, *p.shape) > -0.5, PARAMS)
KEPT = np.flatnonzero(ravel_pytree(MASK)[0])


@pytest.fixture(scope="module")
def whole():
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, PARAMS))
    return np.asarray(jax.jit(jax.hessian(lambda v: loss(unravel(v), DATA)))(flat), np.float64)


@pytest.mark.parametrize("chunk", [7, KEPT.size, 64])
def test_it_is_the_block_of_the_whole_hessian_that_the_mask_keeps(whole, chunk):
    found = landscape.dense_hessian(loss, PARAMS, iter(SPLIT), mask=MASK, chunk=chunk)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found, whole[np.ix_(KEPT, KEPT)], atol=1e-6)


def test_blocks_of_columns_call_for_no_other_matrix(whole):
    inside = [i for i in KEPT if i < 35]  # a/b and a/w come first
    found = landscape.dense_hessian(loss, PARAMS, [DATA], mask=MASK, leaves="a/*", chunk=8)
    np.testing.assert_allclose(found, whole[np.ix_(inside, inside)], atol=1e-6)


@pytest.mark.slow
def test_the_exact_spectrum_and_lanczos_agree_with_it():
    exact = np.linalg.eigvalsh(landscape.dense_hessian(loss, PARAMS, SPLIT, mask=MASK))
    operator = landscape.hessian(loss, PARAMS, SPLIT, mask=MASK)
    np.testing.assert_allclose(landscape.eigenvalues(operator), exact, atol=1e-6)
    for below in (0, 256):  # by Lanczos, and written out
        found = landscape.extremes(operator, KEY, k=4, tolerance=1e-4, exact_below=below)
        assert found.converged and (found.steps == 0) == bool(below)
        np.testing.assert_allclose(found.largest, exact[:-5:-1], atol=2e-4 * exact[-1])
        np.testing.assert_allclose(found.smallest, exact[:4], atol=2e-4 * exact[-1])


def test_leaves_of_several_dtypes():
    params = [jnp.ones(2, jnp.bfloat16), (jnp.ones(2),)]

    def quadratic(p, batch):
        return jnp.mean(batch) * (
            jnp.sum(p[0] ** 2).astype(jnp.float32) + 2 * jnp.sum(p[1][0] ** 2)
        )

    for chunk in (3, 4):
        found = landscape.dense_hessian(quadratic, params, [jnp.ones(3)], chunk=chunk)
        np.testing.assert_array_equal(found, np.diag([2, 2, 4, 4]))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"loss": lambda p, b: jnp.nan * loss(p, b)}, ValueError, "`loss` must be finite"),
        ({"loss": lambda p, b: b.x}, ValueError, "`loss` must return one"),
        ({"params": {"n": np.arange(3)}}, TypeError, "`params` at 'n' must be floating"),
        ({"mask": jax.tree.map(np.zeros_like, MASK)}, ValueError, "`mask` keeps no weight"),
        ({"mask": PARAMS}, TypeError, "`mask` at 'a/b' must be boolean"),
        ({"leaves": "z/*"}, ValueError, r"`leaves` 'z/\*' matches none"),
        ({"batches": iter(())}, ValueError, "`batches` must hold at least one"),
        ({"batches": [Batch(DATA.x, DATA.y[:2])]}, ValueError, r"batch 0 has .*\[2, 11\]"),
        ({"chunk": 0}, ValueError, "`chunk` must be at least 1"),
        ({"limit": 49}, ValueError, "the support has 50 rows, more than `limit` 49"),
    ],
)
def test_bad_input_is_one_sentence(change, error, words):
    settings = {"loss": loss, "params": PARAMS, "batches": [DATA], **change}
    with pytest.raises(error, match=words):
        landscape.dense_hessian(**settings)


def test_a_second_derivative_that_is_not_finite_is_refused():
    with pytest.raises(landscape.NotFiniteError, match="the Hessian must be finite"):
        landscape.dense_hessian(
            lambda w, x: jnp.mean(x) * jnp.sum(w**1.5), jnp.zeros(4), [jnp.ones(1)]
        )
