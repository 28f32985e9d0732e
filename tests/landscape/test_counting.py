"""Equal eigenvalues are counted before an end of a spectrum is called converged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import landscape
from lth_jax.landscape import ends, lanczos
from lth_jax.landscape.tridiagonal import Tridiagonal, hidden_share, ritz

KEY = jax.random.key(0)
DRIVERS = pytest.mark.parametrize("driver", [lanczos.blocked, lanczos.iterate, lanczos.compiled])


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def quadratic(params, batch):
    return 0.5 * jnp.mean(batch) * jnp.sum(params["curvature"] * params["w"] ** 2)


def operator_of(eigenvalues, gradient=1.0):
    """A diagonal matrix; those of one size share a program."""
    curvature = jnp.asarray(eigenvalues, jnp.float32)
    point = {"curvature": curvature, "w": jnp.full(len(curvature), gradient)}
    return landscape.hessian(quadratic, point, [jnp.ones(1)], leaves="w")


def found_in(eigenvalues, key=KEY, **how):
    return landscape.extremes(operator_of(eigenvalues), key, exact_below=0, **how)


@DRIVERS
def test_a_regression_with_ten_outputs_has_every_eigenvalue_ten_times(driver):
    x = np.random.default_rng(0).normal(size=(100, 20)).astype(np.float32)

    def loss(w, x):
        return 0.5 * jnp.mean(jnp.sum((x @ w) ** 2, axis=-1))

    w = np.random.default_rng(1).normal(size=(20, 10)).astype(np.float32)
    operator = landscape.hessian(loss, w, [x])
    how = {"k": 12, "smallest": 3, "exact_below": 0, "driver": driver}
    distinct = np.linalg.eigvalsh(x.T.astype(np.float64) @ x / 100)
    for seed in range(4):  # the steps at which rounding adds a copy of a value differ
        found = landscape.extremes(operator, jax.random.key(seed), **how)
        assert found.converged
        np.testing.assert_allclose(
            found.largest, [*[distinct[-1]] * 10, *[distinct[-2]] * 2], rtol=2e-3
        )
        np.testing.assert_allclose(found.smallest, distinct[0], atol=1e-3 * distinct[-1])
        bounds = np.concatenate([found.largest_bounds, found.smallest_bounds])
        assert bounds.max() <= 1e-3 * distinct[-1]


BULK = np.linspace(-1, 1, 280)


@pytest.mark.parametrize(
    "outliers",
    [
        [5.0] * 20,  # the ends wanted are one eigenvalue
        [9.0, 8.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0],  # the last wanted has copies that are not
        [9.0, 9.0, 8.0, 8.0, 7.0, 7.0, 6.0, 6.0, 5.0, 5.0],
        [9.0, 7.0, 5.0, 4.0, 3.0],  # nothing is repeated
        [5.0, 4.9999, 4.9998, 4.9997, 4.9996],  # nor here, but within the tolerance
    ],
)
def test_the_values_are_the_largest_with_their_multiplicities(outliers):
    eigenvalues = np.concatenate([outliers, np.resize(BULK, 300 - len(outliers))])
    for seed in range(3):
        found = found_in(eigenvalues, jax.random.key(seed), k=5, smallest=0, steps=100)
        exact = np.sort(eigenvalues)[:-6:-1]
        assert found.converged and 0 < found.counting
        np.testing.assert_allclose(found.largest, exact, atol=1.1e-3 * exact[0])


def test_bounds_include_the_residuals_of_the_eigenvectors_found_before():
    # A locked vector that is no eigenvector: the complement is searched whole, so its Ritz values
    # are the eigenvalues of the wrong matrix to rounding, but not those of the right one.
    eigenvalues = np.array([3.0, 2.0, 1.0, 0.5, 0.2, 0.0])
    operator, tilt = operator_of(eigenvalues), 0.1
    row = np.array([[1.0, tilt, 0.0, 0.0, 0.0, 0.0]]) / np.hypot(1.0, tilt)
    locked = ends._Locked(
        row**2 @ eigenvalues,
        np.array([0.1]),
        jnp.asarray(np.pad(row, ((0, 1), (0, 0))), np.float32),
    )
    start = jax.random.normal(KEY, (6,))
    known, krylov = ends._search(
        lanczos.iterate, operator, start, KEY, 5, locked, (2, 0), tolerance=1e-3
    )
    found = ends._lock(operator, locked, known, krylov)
    [place] = np.flatnonzero(found.values < 2.5)
    off = np.abs(found.values[place] - 2.0)
    assert known.bounds[known.new].max() < 1e-4 < off <= found.bounds[place]


def test_copies_at_both_ends():
    eigenvalues = np.concatenate([[-6.0] * 3, BULK, [5.0] * 17])
    found = found_in(eigenvalues, k=3, smallest=3)
    np.testing.assert_allclose(found.largest, 5, atol=6e-3)
    np.testing.assert_allclose(found.smallest, -6, atol=6e-3)
    assert found.converged


def test_a_count_that_the_steps_do_not_allow_is_not_called_converged():
    # The gradient leads to the two largest in 9 steps. To show that a random start in their
    # complement, whose eigenvalues reach up to 18, has missed no copy takes 18.
    operator = operator_of(np.concatenate([[30.0, 20.0], np.linspace(0, 18, 298)]))
    aligned = operator._replace(gradient=jnp.zeros(300).at[:2].set(1.0))
    few, enough = (
        landscape.extremes(
            aligned, KEY, k=2, smallest=0, steps=steps, tolerance=1e-2, exact_below=0
        )
        for steps in (14, 64)
    )
    for found in (few, enough):
        np.testing.assert_allclose(found.largest, [30, 20], atol=0.3)
        assert found.largest_bounds.max() <= 0.3
    assert enough.converged is True and enough.steps < 14 < enough.counting
    assert few.converged is False and few.counting == 14


def test_a_single_value_needs_no_count():
    found = found_in(np.concatenate([[5.0] * 20, BULK]))
    assert found.converged and found.counting == 0


def test_a_start_without_a_part_in_the_second_eigenvalue_does_not_hide_it():
    # The gradient alone would be an exact eigenvector.
    operator = operator_of(np.concatenate([[2.0, 1.9], np.linspace(0, 1, 298)]))
    blind = operator._replace(gradient=1e6 * jnp.eye(300)[0])
    found = landscape.extremes(blind, KEY, k=2, smallest=0, exact_below=0)
    np.testing.assert_allclose(found.largest, [2.0, 1.9], atol=4e-3)
    assert found.converged


def test_the_memory_includes_the_eigenvectors_beside_the_basis():
    with pytest.raises(ValueError, match=r"beside 4 eigenvectors.*at most 6 steps of 300"):
        found_in(np.linspace(0, 1, 300), k=2, steps=16, memory=10 * 4 * 300)


@pytest.mark.parametrize("steps", [1, 3, 6, 10])
def test_no_start_vector_has_more_than_its_share_in_an_eigenvector(steps):
    rng = np.random.default_rng(steps)
    for _ in range(20):
        eigenvalues = np.append(rng.uniform(-1, 1, 30), rng.uniform(1, 3))
        start = rng.normal(size=31) * np.append(np.ones(30), 10.0 ** rng.uniform(-6, 0))
        product = jax.tree_util.Partial(jnp.multiply, jnp.asarray(eigenvalues, jnp.float32))
        krylov = lanczos.iterate(product, jnp.asarray(start, jnp.float32), KEY, steps=steps)
        share = start[-1] ** 2 / (start @ start)
        for beyond in np.linspace(-1, eigenvalues[-1], 7):
            assert np.log(share) <= hidden_share(krylov.found, beyond) + 1e-3


def test_a_share_is_small_only_above_the_ritz_values():
    krylov = lanczos.iterate(lambda v: jnp.linspace(0, 1, 50) * v, jnp.ones(50), KEY, steps=12)
    top = ritz(krylov.found).values[-1]
    assert hidden_share(krylov.found, top - 1e-3) == 0
    shares = [hidden_share(krylov.found, x) for x in (top + 0.1, 2.0, 10.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < -50


def test_a_block_after_a_breakdown_counts_for_itself():
    # Two starts: the first exhausted a space that holds 5, the second one that holds 1.
    found = Tridiagonal(np.array([5.0, 1.0]), np.zeros(2), np.zeros(2), np.array(5.0))
    assert hidden_share(found, 2.0) == -np.inf
    assert hidden_share(found.first(1), 2.0) == 0


@pytest.mark.slow
def test_no_count_misses_a_copy():
    # At a probability of 1e-4 each, all of these seeds count right with a probability of 97 %.
    eigenvalues = np.concatenate([[2.0, 2.0], np.linspace(0, 1, 1998)])
    operator = operator_of(eigenvalues)
    for seed in range(300):
        found = landscape.extremes(operator, jax.random.key(seed), k=2, smallest=0, exact_below=0)
        assert found.converged
        np.testing.assert_allclose(found.largest, 2.0, atol=4e-3)


def test_the_probability_of_a_small_component_is_at_most_that_of_the_count():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20_000, 30))
    squares = vectors[:, 0] ** 2 / np.sum(vectors**2, axis=1)
    for miss in (0.03, 0.3):
        rare = np.exp(ends._rare(30)) * (miss / ends.MISS) ** 2
        assert 0.7 * miss < np.mean(squares < rare) <= 1.15 * miss
