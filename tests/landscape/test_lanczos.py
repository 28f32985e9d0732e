"""Lanczos against `eigh`, in easy cases and in those where naive versions fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.landscape import lanczos
from lth_jax.landscape.tridiagonal import Tridiagonal, ritz

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


@jax.jit
def multiply(matrix, v):
    return matrix @ v


def symmetric(eigenvalues, seed=0):
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return jnp.asarray((q * eigenvalues) @ q.T, jnp.float32)


def start(n, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=n), jnp.float32)


@jax.jit(static_argnames="steps")
def compiled_scan(matrix, v, key, steps):
    return lanczos.scan(lambda x: matrix @ x, v, key, steps=steps)


def on_host(matrix, v, key, steps, left=None):
    run = lanczos.iterate(lambda x: multiply(matrix, x), v, key, steps=steps, left=left)
    return run.found


def in_blocks(matrix, v, key, steps, left=None):
    product = jax.tree_util.Partial(jnp.matmul, matrix)
    return lanczos.blocked(product, v, key, steps=steps, left=left).found


DRIVERS = pytest.mark.parametrize("driver", [on_host, in_blocks, compiled_scan])


@DRIVERS
def test_all_steps_give_the_eigenvalues(driver):
    eigenvalues = np.sort(np.random.default_rng(2).normal(size=40))
    found = ritz(driver(symmetric(eigenvalues), start(40), KEY, 40))
    np.testing.assert_allclose(found.values, eigenvalues, atol=2e-5)
    assert found.weights.sum() == pytest.approx(1)


@DRIVERS
@pytest.mark.parametrize("steps", [32, 64])
def test_an_exhausted_space_gives_no_false_eigenvalues(driver, steps):
    eigenvalues = np.zeros(100)
    eigenvalues[:10] = np.linspace(20, 449, 10)
    tridiagonal = driver(symmetric(eigenvalues), start(100), KEY, steps)
    found = ritz(tridiagonal)
    # Ten eigenvectors and one vector of the null space; rounding may carry it one step on.
    assert tridiagonal.rank in (11, 12)
    np.testing.assert_allclose(found.values[-10:], eigenvalues[:10], rtol=1e-4)
    np.testing.assert_allclose(found.values[:-10], 0, atol=0.02)
    assert found.bounds.max() < 0.05


@DRIVERS
def test_a_multiple_eigenvalue_is_found_as_often_as_it_is_there(driver):
    eigenvalues = np.array([1.0] * 6 + [4.0] * 4)
    tridiagonal = driver(symmetric(eigenvalues), start(10), KEY, 10)
    assert tridiagonal.rank == 2
    np.testing.assert_allclose(ritz(tridiagonal).values, eigenvalues, atol=1e-5)


@DRIVERS
def test_the_zero_matrix(driver):
    tridiagonal = driver(jnp.zeros((9, 9)), start(9), KEY, 9)
    found = ritz(tridiagonal)
    assert tridiagonal.rank == 1
    np.testing.assert_array_equal(found.values, 0)
    np.testing.assert_array_equal(found.bounds, 0)


@DRIVERS
def test_one_weight(driver):
    tridiagonal = driver(jnp.full((1, 1), -3.0), jnp.ones(1), KEY, 1)
    assert ritz(tridiagonal).values.tolist() == [-3.0]


@pytest.mark.parametrize("steps", [4, 8, 12, 20])
def test_every_bound_holds(steps):
    eigenvalues = np.concatenate([np.random.default_rng(3).normal(size=57), [9, 9.5, -12]])
    found = ritz(on_host(symmetric(eigenvalues), start(60), KEY, steps))
    distance = np.abs(found.values[:, None] - eigenvalues).min(axis=1)
    assert (distance <= found.bounds).all()
    assert found.bounds.max() > 0.1  # not yet converged inside: the bounds say so


def test_bounds_hold_where_a_real_coupling_was_dropped():
    # Two clusters coupled by less than the threshold: a true direction is cut off, and counted.
    matrix = jnp.diag(jnp.array([1.0, 1.0])) + 5e-6 * jnp.array([[0.0, 1.0], [1.0, 0.0]])
    tridiagonal = on_host(matrix, jnp.array([1.0, 0.0]), KEY, 2)
    found = ritz(tridiagonal)
    assert tridiagonal.rank == 1
    assert tridiagonal.dropped[0] == pytest.approx(5e-6, rel=1e-3)
    exact = np.linalg.eigvalsh(np.asarray(matrix, np.float64))
    assert (np.abs(found.values[:, None] - exact).min(axis=1) <= found.bounds).all()


def test_eigenvalues_appear_once_after_many_steps():
    # Without reorthogonalisation the outlier would come back as soon as it has converged.
    eigenvalues = np.concatenate([np.linspace(0, 1, 119), [100]])
    found = ritz(on_host(symmetric(eigenvalues), start(120), KEY, 64))
    assert (found.values > 50).sum() == 1


def never(found):
    """Asks for two steps more, however many there are."""
    return 2


@pytest.mark.parametrize("left", [None, never])  # large blocks, small ones
@pytest.mark.parametrize("steps", [10, 40])  # one block of the basis, and three or five
def test_the_drivers_agree_before_a_breakdown(steps, left):
    matrix, v = symmetric(np.linspace(-1, 3, 50)), start(50)
    traced = compiled_scan(matrix, v, KEY, steps)
    for driver in (on_host, in_blocks):
        found = driver(matrix, v, KEY, steps, left)
        assert found.steps == steps
        np.testing.assert_allclose(found.diagonal[:20], traced.diagonal[:20], atol=1e-4)
        np.testing.assert_allclose(found.coupling[:20], traced.coupling[:20], atol=1e-4)


def test_a_stock_convolution_is_kept_out_of_loops():
    def convolve(v):
        image = v.reshape(1, 1, -1)
        return jax.lax.conv_general_dilated(image, jnp.ones((1, 1, 3)), (1,), "SAME").ravel()

    assert lanczos.driver(jax.tree_util.Partial(convolve), start(5)) is lanczos.iterate
    assert lanczos.driver(jax.tree_util.Partial(jnp.negative), start(5)) is lanczos.blocked


def test_matrices_of_equal_shapes_are_traced_once_for_the_choice():
    traced = []

    def multiply(matrix, v):
        traced.append(matrix.shape)
        return matrix @ v

    for matrix in (jnp.eye(5), 2 * jnp.eye(5)):
        lanczos.driver(jax.tree_util.Partial(multiply, matrix), start(5))
    assert traced == [(5, 5)]


def test_a_product_is_traced_without_writing_it_out():
    @jax.tree_util.register_static
    class Product:
        def __call__(self, v):
            return 2 * v

        def __repr__(self):
            raise AssertionError("an operator's entries take longer to print than to use")

    assert lanczos.driver(Product(), start(5)) is lanczos.blocked


def test_the_scan_maps_over_a_population():
    matrices = jnp.stack([symmetric(np.linspace(0, top, 10)) for top in (1.0, 2.0, 3.0)])
    found = jax.vmap(lambda m: compiled_scan(m, start(10), KEY, steps=10))(matrices)
    for i, top in enumerate((1.0, 2.0, 3.0)):
        member = Tridiagonal(*(np.asarray(part)[i] for part in found))
        np.testing.assert_allclose(ritz(member).values, np.linspace(0, top, 10), atol=1e-5)


@pytest.mark.parametrize("driver", [lanczos.iterate, lanczos.blocked])
def test_it_stops_on_request(driver):
    asked = []

    def left(found):
        asked.append(found.steps)
        return {5: 1, 6: 9, 15: 5, 20: 0}[found.steps]

    multiplied = jax.tree_util.Partial(multiply, symmetric(np.linspace(0, 1, 50)))
    found = driver(multiplied, start(50), KEY, steps=40, left=left).found
    assert found.steps == 20
    assert asked == [5, 6, 15, 20]


def test_a_basis_that_does_not_fit_is_refused_before_it_is_made():
    with pytest.raises(ValueError, match=r"6400000000 bytes.*at most 20 steps of 25000000"):
        lanczos.check_steps(64, 25_000_000, dtype=jnp.float32, memory=2 * 10**9)
    lanczos.check_steps(20, 25_000_000, dtype=jnp.float32, memory=2 * 10**9)


@pytest.mark.parametrize("steps", [0, 11])
def test_steps_beyond_the_matrix_are_refused(steps):
    with pytest.raises(ValueError, match=r"`steps` must lie in \[1, 10\]"):
        lanczos.check_steps(steps, 10, dtype=jnp.float32, memory=10**9)
