"""Numbers follow the dtype of the parameters: in float64, public functions are right to 1e-12."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import landscape
from lth_jax.landscape import lanczos, numerics
from lth_jax.landscape.tridiagonal import ritz
from lth_jax.types import Batch

RNG = np.random.default_rng(0)
N, EXAMPLES = 12, 21
X, Y = RNG.normal(size=(EXAMPLES, N)), RNG.normal(size=EXAMPLES)
POINT = RNG.normal(size=N)
MASK = np.arange(N) % 3 > 0
RESIDUAL = X @ POINT - Y
GRAM = X.T @ X / EXAMPLES
SCATTER = (X * RESIDUAL[:, None] ** 2).T @ X / EXAMPLES  # of the gradients
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield


def batches():
    """Of unequal sizes, of which none has a share that float32 represents."""
    return [
        Batch(jnp.asarray(X[a:b]), jnp.asarray(Y[a:b])) for a, b in ((0, 11), (11, 17), (17, 21))
    ]


def predict(w, batch):
    return batch.x @ w


def squares(outputs, batch):
    return 0.5 * jnp.mean((outputs - batch.y) ** 2)


def loss(w, batch):
    return squares(predict(w, batch), batch)


def draw(key, w, batch):
    return batch  # the labels of the data: then the Monte Carlo Fisher matrix is known too


def point():
    return jnp.asarray(POINT)


MATRICES = {
    "hessian": (lambda **how: landscape.hessian(loss, point(), batches(), **how), GRAM),
    "gauss_newton": (
        lambda **how: landscape.gauss_newton(predict, squares, point(), batches(), **how),
        GRAM,
    ),
    "empirical_fisher": (
        lambda **how: landscape.empirical_fisher(loss, point(), batches(), **how),
        SCATTER,
    ),
    "monte_carlo_fisher": (
        lambda **how: landscape.monte_carlo_fisher(loss, draw, point(), batches(), KEY, **how),
        SCATTER,
    ),
}


def close(found, expected, scale=1.0):
    found, expected = np.asarray(found, np.float64), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("mask", [None, MASK])
def test_every_operator(name, mask):
    build, expected = MATRICES[name]
    operator, on = build(mask=mask), np.flatnonzero(np.ones(N, bool) if mask is None else mask)
    expected = expected[np.ix_(on, on)]
    close(landscape.dense(operator), expected)
    close(operator.gradient, (X.T @ RESIDUAL / EXAMPLES)[on])
    close(landscape.eigenvalues(operator), np.linalg.eigvalsh(expected))
    assert {leaf.dtype for leaf in jax.tree.leaves(operator) if leaf.dtype.kind == "f"} == {
        jnp.dtype(jnp.float64)
    }


def spectrum():
    return np.linalg.eigvalsh(GRAM)


def test_ends():
    for driver in (lanczos.blocked, lanczos.iterate, lanczos.compiled):
        operator = MATRICES["hessian"][0]()
        found = landscape.extremes(
            operator, KEY, k=3, tolerance=1e-12, exact_below=0, driver=driver
        )
        assert found.converged
        close(found.largest, spectrum()[:-4:-1])
        close(found.smallest, spectrum()[:3])
        assert found.largest_bounds.max() < 1e-12


def test_a_coupling_of_1e_8_is_no_breakdown():
    # It is one in float32. Without it the two eigenvalues would be off by 1e-8.
    matrix = jnp.asarray([[1.0, 1e-8], [1e-8, 1.0]])
    krylov = lanczos.iterate(lambda v: matrix @ v, jnp.asarray([1.0, 0.0]), KEY, steps=2)
    assert krylov.found.rank == 2
    close(ritz(krylov.found).values, [1 - 1e-8, 1 + 1e-8], 1e-2)


def test_density_has_the_moments_of_the_spectrum():
    found = landscape.density(MATRICES["hessian"][0](), KEY, probes=2, steps=N)
    operator = MATRICES["hessian"][0]()
    for i in range(2):  # the quadrature of a whole Krylov space is exact
        signs, _ = jax.random.split(jax.random.fold_in(KEY, i))
        v = np.asarray(jax.random.rademacher(signs, (N,), operator.dtype))
        close(found.weights[i] @ found.nodes[i] ** 2, v @ GRAM @ GRAM @ v / N)


def test_traces():
    operator, full = MATRICES["hessian"][0](), 3 * N
    close(landscape.hutch_plus_plus(operator, KEY, probes=full).value, np.trace(GRAM), 10)
    v = [
        np.asarray(jax.random.rademacher(jax.random.fold_in(KEY, i), (N,), jnp.float64))
        for i in range(4)
    ]
    close(landscape.trace(operator, KEY, probes=4).value, np.mean([a @ GRAM @ a for a in v]), 10)
    close(
        landscape.diagonal(operator, KEY, probes=4).value, np.mean([a * (GRAM @ a) for a in v], 0)
    )
    expected = np.sqrt(np.mean([a @ GRAM @ GRAM @ a for a in v]))
    close(landscape.frobenius_norm(operator, KEY, probes=4).value, expected, 10)


def test_the_dense_hessian():
    for chunk in (5, N):
        close(landscape.dense_hessian(loss, point(), batches(), chunk=chunk), GRAM)


def test_named_points_and_step_sizes():
    found = landscape.at_named_points(
        lambda w, m: landscape.hessian(loss, w, batches(), mask=m), point(), jnp.asarray(MASK), KEY
    )
    on = np.flatnonzero(MASK)
    inside = np.linalg.eigvalsh(GRAM[np.ix_(on, on)])
    close(landscape.step_sizes(found["masked"]).best, 2 / (inside[0] + inside[-1]))
    close(landscape.relative_sharpness(found["dense"], 0.3), 0.15 * spectrum()[-1])


def test_lines_and_planes():
    data = Batch(jnp.asarray(X), jnp.asarray(Y))
    other, alphas = RNG.normal(size=N), [0.0, 0.1, 1.0]

    def at(w):
        return 0.5 * np.mean((X @ w - Y) ** 2)

    mixed = [(1 - a) * POINT + a * other for a in alphas]
    line = landscape.along_line(lambda w: loss(w, data), point(), jnp.asarray(other), alphas)
    close(line, [at(w) for w in mixed], 10)
    close(landscape.mix(point(), jnp.asarray(other), 0.1), mixed[1])
    close(landscape.barrier(line), max(map(at, mixed)) - (at(POINT) + at(other)) / 2, 10)
    chord = [
        at(w) - (1 - a) * at(POINT) - a * at(other) for w, a in zip(mixed, alphas, strict=True)
    ]
    close(landscape.barrier_above_chord(line, alphas), max(chord), 10)
    plane = landscape.over_plane(
        lambda w: loss(w, data), point(), jnp.asarray(other), point(), [0.1], [0.3]
    )
    close(plane, [[at(POINT + 0.1 * other + 0.3 * POINT)]], 10)


def test_a_filter_direction_has_the_norms_of_the_filters():
    kernel = jnp.asarray(RNG.normal(size=(5, 3)))
    found = landscape.filter_direction(KEY, {"kernel": kernel})["kernel"]
    close(np.linalg.norm(found, axis=0), np.linalg.norm(kernel, axis=0))


def test_renewed_statistics():
    def apply(params, state, x, *, key, train):
        return x, 0.9 * state + 0.1 * x.mean()

    found = landscape.renew_state(apply, {}, jnp.asarray(1 / 3), batches()[:1])
    close(found, 0.9 / 3 + 0.1 * X[:11].mean())


CHECKED = {
    *MATRICES,
    *("dense", "dense_hessian", "eigenvalues", "extremes", "density", "Operator"),
    *("trace", "diagonal", "frobenius_norm", "hutch_plus_plus", "Estimate"),
    *("along_line", "mix", "barrier", "barrier_above_chord", "over_plane"),
    *("filter_direction", "renew_state", "at_named_points", "step_sizes", "relative_sharpness"),
    *("Density", "Extremes", "StepSizes", "NotFiniteError"),
}


def test_no_public_name_is_missing_here():
    assert set(landscape.__all__) == CHECKED


@pytest.mark.parametrize("name", MATRICES)
def test_products_ask_for_all_bits_of_float32(name):
    # Accelerators take fewer by default.
    operator = MATRICES[name][0]()
    jaxpr = str(jax.make_jaxpr(operator)(operator.gradient))
    assert "dot_general" in jaxpr
    assert jaxpr.count("dot_general") <= jaxpr.count("Precision.HIGHEST")


def test_full_precision_leaves_an_explicit_choice_alone():
    with numerics.full_precision():
        jaxpr = jax.make_jaxpr(lambda a: jnp.matmul(a, a, precision="default"))(jnp.eye(2))
    assert "HIGHEST" not in str(jaxpr)
