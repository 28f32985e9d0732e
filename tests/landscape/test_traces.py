"""Stochastic estimates against matrices written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.landscape import density, traces
from lth_jax.landscape.operators import hessian

N = 24
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def quadratic(params, batch):
    return 0.5 * jnp.mean(batch) * params["w"] @ params["matrix"] @ params["w"]


def operator_of(matrix):
    point = {"matrix": jnp.asarray(matrix, jnp.float32), "w": jnp.zeros(N)}
    return hessian(quadratic, point, [jnp.ones(1)], leaves="w")


def random_matrix(seed=0):
    a = np.random.default_rng(seed).normal(size=(N, N))
    return (a + a.T) / 2


def standardised(estimator, truth, matrix, trials=60, probes=12):
    """(estimate − truth) / its own standard error, for independent keys."""
    operator = operator_of(matrix)
    keys = jax.random.split(KEY, trials)
    found = [estimator(operator, key, probes=probes) for key in keys]
    return np.array([(f.value - truth) / f.error for f in found])


def test_the_trace_is_unbiased_and_its_error_is_honest():
    matrix = random_matrix()
    z = standardised(traces.trace, np.trace(matrix), matrix)
    assert abs(z.mean()) < 3.5 / np.sqrt(len(z))  # Student's t with 11 degrees: variance 1.2
    assert 0.7 < z.std() < 1.6


def test_the_error_of_the_trace_is_that_of_the_formula():
    matrix = random_matrix(1)
    found = traces.trace(operator_of(matrix), KEY, probes=400)
    off_diagonal = matrix - np.diag(np.diag(matrix))
    expected = np.sqrt(2 * (off_diagonal**2).sum() / 400)
    assert found.error == pytest.approx(expected, rel=0.15)
    assert found.products == 400


def test_hutch_plus_plus_beats_hutchinson_where_few_eigenvalues_dominate():
    q, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(N, N)))
    eigenvalues = np.concatenate([[100.0, 50.0, 25.0], np.full(N - 3, 0.1)])
    operator = operator_of((q * eigenvalues) @ q.T)
    plain = traces.trace(operator, KEY, probes=30)
    better = traces.hutch_plus_plus(operator, KEY, probes=30)
    assert better.value == pytest.approx(eigenvalues.sum(), rel=1e-4)
    assert better.error < 0.01 * plain.error
    assert better.products == 30


def test_hutch_plus_plus_is_unbiased_and_its_error_is_honest():
    matrix = random_matrix(3)
    z = standardised(traces.hutch_plus_plus, np.trace(matrix), matrix, probes=18)
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.6 < z.std() < 1.8  # six residual probes: Student's t with 5 degrees


def test_hutch_plus_plus_with_a_full_sketch_is_exact():
    matrix = random_matrix(4)
    found = traces.hutch_plus_plus(operator_of(matrix), KEY, probes=3 * N)
    assert found.value == pytest.approx(np.trace(matrix), abs=1e-3)
    assert found.error < 1e-4


def test_the_diagonal_and_its_errors():
    matrix = random_matrix(5)
    found = traces.diagonal(operator_of(matrix), KEY, probes=300)
    off_diagonal = matrix - np.diag(np.diag(matrix))
    np.testing.assert_allclose(found.error, np.sqrt((off_diagonal**2).sum(1) / 300), rtol=0.3)
    assert (np.abs(found.value - np.diag(matrix)) < 4 * found.error).all()


def test_the_frobenius_norm_and_its_error():
    matrix = random_matrix(6)
    found = traces.frobenius_norm(operator_of(matrix), KEY, probes=300)
    assert abs(found.value - np.linalg.norm(matrix)) < 4 * found.error
    assert found.error < 0.03 * found.value


def test_the_zero_matrix_has_zero_everything():
    zero = operator_of(np.zeros((N, N)))
    for estimator in (traces.trace, traces.hutch_plus_plus, traces.frobenius_norm):
        assert estimator(zero, KEY, probes=6)[:2] == (0.0, 0.0)


def test_one_probe_has_no_error():
    assert np.isnan(traces.trace(operator_of(random_matrix()), KEY, probes=1).error)


def test_products_that_are_not_finite_are_refused():
    # The loss and its gradient are finite at zero, its second derivative is not.
    operator = hessian(lambda w, x: jnp.mean(x) * jnp.sum(w**1.5), jnp.zeros(4), [jnp.ones(1)])
    for estimator in (traces.trace, traces.hutch_plus_plus, traces.diagonal, traces.frobenius_norm):
        with pytest.raises(ValueError, match="must be finite, but a product was NaN"):
            estimator(operator, KEY, probes=6)


@pytest.mark.parametrize(
    ("estimator", "probes"),
    [
        (traces.trace, 0),
        (traces.diagonal, 0),
        (traces.frobenius_norm, 0),
        (traces.hutch_plus_plus, 2),
    ],
)
def test_too_few_probes_are_refused(estimator, probes):
    with pytest.raises(ValueError, match="`probes` must be at least"):
        estimator(operator_of(np.eye(N)), KEY, probes=probes)


@pytest.mark.parametrize(
    "estimate",
    [traces.trace, traces.hutch_plus_plus, traces.diagonal, traces.frobenius_norm, density],
)
def test_arguments_of_other_types_are_named(estimate):
    with pytest.raises(TypeError, match="`operator` must be an `Operator`"):
        estimate(jnp.eye(3), KEY)
    with pytest.raises(TypeError, match="`key` must be a typed key"):
        estimate(operator_of(np.eye(N)), 0)
