"""Spectra of networks and quadratics whose eigenvalues are known."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import landscape, trees
from lth_jax.landscape import lanczos
from lth_jax.landscape.operators import Operator, hessian
from lth_jax.landscape.tridiagonal import ritz

KEY = jax.random.key(0)
ONE = [jnp.ones(1)]


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


class _CompileCounter(logging.Handler):
    """Counts what XLA compiles meanwhile, from JAX's own log."""

    def __enter__(self):
        self.count = 0
        logging.getLogger("jax").addHandler(self)
        return self

    def __exit__(self, *_):
        logging.getLogger("jax").removeHandler(self)

    def emit(self, record):
        self.count += record.getMessage().startswith("Compiling")


def quadratic(params, batch):
    return 0.5 * jnp.mean(batch) * params["w"] @ params["matrix"] @ params["w"]


def operator_of(matrix):
    """A matrix as an operator; those of one size share a program, since it is an argument."""
    point = {"matrix": jnp.asarray(matrix, jnp.float32), "w": jnp.zeros(len(matrix))}
    return hessian(quadratic, point, ONE, leaves="w")


def diagonal(eigenvalues):
    return operator_of(np.diag(eigenvalues))


def rotated(eigenvalues):
    q, _ = np.linalg.qr(draw(12, len(eigenvalues), len(eigenvalues)))
    return operator_of((q * eigenvalues) @ q.T)


def regression(w, batch):
    x, y = batch
    return 0.5 * jnp.mean((x @ w - y) ** 2)


X = draw(0, 60, 30).astype(np.float32)
Y = draw(1, 60).astype(np.float32)
GRAM = X.astype(np.float64).T @ X / len(X)
MASK = draw(2, 30) > 0
BATCHES = [(X[:40], Y[:40]), (X[40:], Y[40:])]


def test_masked_regression_has_the_principal_submatrix():
    operator = hessian(regression, np.zeros(30, np.float32), BATCHES, mask=MASK)
    expected = GRAM[np.ix_(MASK, MASK)]
    np.testing.assert_allclose(landscape.dense(operator, chunk=7), expected, atol=1e-5)
    np.testing.assert_allclose(
        landscape.eigenvalues(operator), np.linalg.eigvalsh(expected), atol=1e-5
    )


def test_the_subnetwork_interlaces_the_whole_at_the_same_point():
    w = np.zeros(30, np.float32)
    whole = landscape.extremes(hessian(regression, w, BATCHES), KEY, exact_below=0)
    part = landscape.extremes(hessian(regression, w, BATCHES, mask=MASK), KEY, exact_below=0)
    assert part.largest[0] <= whole.largest[0]
    assert part.smallest[0] >= whole.smallest[0] > 0
    exact = np.linalg.eigvalsh(GRAM[np.ix_(MASK, MASK)])
    assert abs(part.largest[0] - exact[-1]) <= part.largest_bounds[0]
    assert abs(part.smallest[0] - exact[0]) <= part.smallest_bounds[0]  # no spurious zero


def test_deep_linear_net_with_whitened_inputs_and_no_residual():
    # The spectrum is σ_i(W1)² + σ_j(W2)² over all pairs of an input and an output, then zeros.
    w1, w2 = draw(3, 4, 6), draw(4, 3, 4)
    q, _ = np.linalg.qr(draw(5, 40, 6))
    x = (q * np.sqrt(40)).astype(np.float32)
    params = {"w1": w1.astype(np.float32), "w2": w2.astype(np.float32)}
    y = (x @ params["w1"].T @ params["w2"].T).astype(np.float32)

    def loss(p, batch):
        return 0.5 * jnp.mean(jnp.sum((batch[0] @ p["w1"].T @ p["w2"].T - batch[1]) ** 2, 1))

    inputs, outputs = np.linalg.eigvalsh(w1.T @ w1), np.linalg.eigvalsh(w2 @ w2.T)
    pairs = np.sort((inputs[:, None] + outputs).ravel())
    found = landscape.eigenvalues(hessian(loss, params, [(x, y)]))
    np.testing.assert_allclose(found[-18:], pairs, rtol=1e-4)
    np.testing.assert_allclose(found[:-18], 0, atol=1e-4)


def test_lanczos_with_all_steps_is_the_exact_route():
    operator = hessian(regression, np.zeros(30, np.float32), BATCHES)
    exact = landscape.extremes(operator, KEY, k=5)
    found = landscape.extremes(operator, KEY, k=5, steps=64, tolerance=0.0, exact_below=0)
    assert (exact.steps, exact.rank, found.steps) == (0, None, 30)
    np.testing.assert_allclose(found.largest, exact.largest, atol=1e-5)
    np.testing.assert_allclose(found.smallest, exact.smallest, atol=1e-5)


@pytest.mark.parametrize("driver", [lanczos.blocked, lanczos.iterate, lanczos.compiled])
@pytest.mark.parametrize("steps", [32, 64])
def test_a_regression_on_ten_examples_has_rank_ten(driver, steps):
    x, y = draw(6, 10, 100).astype(np.float32), draw(7, 10).astype(np.float32)
    operator = hessian(regression, np.zeros(100, np.float32), [(x, y)])
    exact = np.linalg.eigvalsh(x.astype(np.float64) @ x.T / 10)[::-1]
    found = landscape.extremes(operator, KEY, k=10, steps=steps, driver=driver, exact_below=0)
    np.testing.assert_allclose(found.largest, exact, rtol=1e-4)
    np.testing.assert_allclose(found.smallest, 0, atol=1e-3)
    assert found.converged
    assert found.collapsed
    assert found.rank in (11, 12)


def test_the_curvature_of_a_collapsed_layer_is_an_error():
    params = {"a": draw(6, 6, 5).astype(np.float32), "b": draw(7, 5, 4).astype(np.float32)}
    mask = {"a": np.ones((6, 5), bool), "b": np.zeros((5, 4), bool)}
    mask["b"][0, 0] = True  # one path is left: all but six weights have no say
    ticket = jax.tree.map(np.multiply, params, mask)

    def loss(p, x):
        return jnp.mean(jnp.tanh(x @ p["a"]) @ p["b"])

    operator = hessian(loss, ticket, [draw(8, 20, 6).astype(np.float32)], mask=mask)
    found = landscape.extremes(operator, KEY, steps=31, tolerance=0.0, exact_below=0)
    exact = landscape.eigenvalues(operator)
    assert found.collapsed
    assert found.rank is not None
    assert found.rank <= 9
    assert found.largest[0] == pytest.approx(exact[-1], abs=1e-5)
    assert found.smallest[0] == pytest.approx(exact[0], abs=1e-5)


@pytest.mark.slow
def test_the_zero_operator():
    found = landscape.extremes(diagonal(np.zeros(20)), KEY, k=3, exact_below=0)
    assert found.largest.tolist() == found.smallest.tolist() == [0, 0, 0]
    assert found.converged
    assert found.collapsed


def test_it_stops_as_soon_as_the_bounds_allow():
    operator = rotated(np.concatenate([np.linspace(0, 1, 298), [50, 100]]))
    runs = []

    def recorded(*at, **how):
        runs.append(lanczos.blocked(*at, **how))
        return runs[-1]

    early = landscape.extremes(operator, KEY, tolerance=1e-1, steps=64, driver=recorded)
    late = landscape.extremes(operator, KEY, tolerance=1e-4, steps=64, driver=recorded)
    assert early.steps < late.steps < 64
    assert early.converged
    assert late.converged
    for found, tolerance, run in zip((early, late), (1e-1, 1e-4), runs, strict=True):
        assert abs(found.largest[0] - 100) <= found.largest_bounds[0]
        before = ritz(run.found.first(found.steps - 3))  # not much further than it takes
        assert before.bounds[[0, -1]].max() > tolerance * before.values[-1]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_gradient_along_the_top_saves_steps_and_changes_no_eigenvalue(share):
    operator = diagonal(np.concatenate([np.linspace(0, 1, 299), [1.5]]))
    gradient = share * jnp.eye(300)[-1] + (1 - share) * jnp.eye(300)[0]
    plain, aided = (
        landscape.extremes(one, KEY, smallest=0, tolerance=1e-3)
        for one in (operator, operator._replace(gradient=gradient))
    )
    assert plain.largest[0] == pytest.approx(1.5, abs=2e-3)
    assert aided.largest[0] == pytest.approx(1.5, abs=2e-3)
    assert (aided.steps < plain.steps) == bool(share)


@pytest.mark.parametrize("driver", [lanczos.blocked, lanczos.iterate, lanczos.compiled])
@pytest.mark.slow
def test_a_pilot_saves_steps_and_changes_no_eigenvalue(driver):
    eigenvalues = np.concatenate([[-4.0], np.linspace(0, 1, 297), [3.0, 5.0]])
    q, _ = np.linalg.qr(draw(12, 300, 300))
    noise = draw(13, 300, 300)
    matrix = (q * eigenvalues) @ q.T
    operator, pilot = operator_of(matrix), operator_of(matrix + 1e-3 * (noise + noise.T))
    how = {"k": 2, "smallest": 1, "tolerance": 1e-4, "driver": driver}
    plain = landscape.extremes(operator, KEY, **how)
    aided = landscape.extremes(operator, KEY, pilot=pilot, **how)
    for found in (plain, aided):
        np.testing.assert_allclose(found.largest, [5, 3], atol=1e-3)
        np.testing.assert_allclose(found.smallest, [-4], atol=1e-3)
        assert found.converged
    assert aided.steps < plain.steps or driver is lanczos.compiled


def test_a_pilot_that_is_blind_to_the_top_does_not_hide_it():
    eigenvalues = np.linspace(0, 1, 300)
    operator = diagonal(np.concatenate([eigenvalues[:-1], [2.0]]))
    pilot = diagonal(np.concatenate([eigenvalues[:-1], [0.0]]))
    found = landscape.extremes(operator, KEY, smallest=0, pilot=pilot)
    assert found.largest[0] == pytest.approx(2.0, abs=1e-3)


def test_a_pilot_must_be_of_the_same_size():
    operator = diagonal(np.ones(20))
    with pytest.raises(ValueError, match=r"`pilot` must have 20 rows, got 19\."):
        landscape.extremes(operator, KEY, pilot=diagonal(np.ones(19)))


def test_too_few_steps_are_reported():
    found = landscape.extremes(diagonal(np.linspace(-1, 1, 300)), KEY, steps=8, tolerance=1e-6)
    assert not found.converged
    assert abs(found.largest[0] - 1) <= found.largest_bounds[0]


@pytest.mark.parametrize("driver", [lanczos.blocked, lanczos.iterate, lanczos.compiled])
@pytest.mark.slow
def test_multiple_eigenvalues_at_an_end_are_all_found(driver):
    eigenvalues = np.array([1.0] * 20 + [2.0] * 30 + [5.0] * 3)
    found = landscape.extremes(rotated(eigenvalues), KEY, k=4, driver=driver, exact_below=0)
    np.testing.assert_allclose(found.largest, [5, 5, 5, 2], atol=1e-4)
    np.testing.assert_allclose(found.smallest, [1, 1, 1, 1], atol=1e-4)
    assert found.converged


def test_one_end_alone_takes_no_more_steps_than_both():
    operator = rotated(np.concatenate([np.linspace(0, 1, 199), [5.0]]))
    both = landscape.extremes(operator, KEY, tolerance=1e-4, exact_below=0)
    top = landscape.extremes(operator, KEY, smallest=0, tolerance=1e-4, exact_below=0)
    assert top.converged and top.steps < both.steps
    assert top.largest[0] == pytest.approx(5.0, abs=1e-3)
    assert top.smallest.size == top.smallest_bounds.size == 0


def test_density_integrates_to_one_and_follows_the_spectrum():
    eigenvalues = np.concatenate([draw(9, 290), np.full(10, 12.0)])
    found = landscape.density(rotated(eigenvalues), KEY, probes=20, steps=40, width=0.3)
    step = found.points[1] - found.points[0]
    assert found.mean.sum() * step == pytest.approx(1, abs=1e-3)
    outliers = found.points > 10
    assert found.mean[outliers].sum() * step == pytest.approx(10 / 300, rel=0.3)
    z = (found.points[:, None] - eigenvalues) / 0.3
    exact = np.exp(-0.5 * z**2).mean(1) / (0.3 * np.sqrt(2 * np.pi))
    assert np.abs(found.mean - exact).max() < 0.1 * exact.max()
    covered = (found.low <= exact + 1e-9) & (exact <= found.high + 1e-9)
    assert covered.mean() > 0.8


def test_density_of_a_diagonal_matrix_from_signs_has_its_moments_exactly():
    # |signs| weigh every eigenvector alike, so each probe has the exact mean.
    eigenvalues = draw(10, 50)
    found = landscape.density(diagonal(eigenvalues), KEY, probes=2, steps=10)
    mean = (found.nodes * found.weights).sum(1)
    np.testing.assert_allclose(mean, eigenvalues.mean(), atol=1e-6)


def test_density_counts_the_support_and_not_the_pruned_weights():
    operator = hessian(regression, np.zeros(30, np.float32), BATCHES, mask=MASK)
    found = landscape.density(operator, KEY, probes=4, points=[0.0], width=0.01)
    assert found.size == MASK.sum()
    assert found.mean[0] < 1e-3  # the pruned half would stand there as a spike of height 20


def test_density_of_the_zero_operator():
    found = landscape.density(diagonal(np.zeros(20)), KEY, probes=2)
    np.testing.assert_array_equal(found.nodes, 0)
    assert np.isfinite(found.mean).all()


def test_one_probe_has_no_interval():
    found = landscape.density(diagonal(draw(11, 50)), KEY, probes=1, steps=10)
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()


@pytest.mark.parametrize("driver", [lanczos.blocked, lanczos.iterate, lanczos.compiled])
def test_a_population_of_masks_shares_every_program(driver):
    traced: list[None] = []
    compilations = []

    def counted(w, batch):
        traced.append(None)
        return regression(w, batch)

    for seed in (1, 2, 3):
        mask = np.random.default_rng(seed).permutation(MASK)
        traced.clear()
        with jax.log_compiles(), _CompileCounter() as counter:
            operator = hessian(counted, np.ones(30, np.float32), BATCHES, mask=mask)
            found = landscape.extremes(operator, KEY, driver=driver, exact_below=0)
        compilations.append((len(traced), counter.count))
        exact = np.linalg.eigvalsh(GRAM[np.ix_(mask, mask)])
        assert abs(found.largest[0] - exact[-1]) <= found.largest_bounds[0]
    assert min(compilations[0]) > 0
    assert compilations[1:] == [(0, 0), (0, 0)]


def test_operators_stack_into_a_population():
    masks = [np.random.default_rng(seed).permutation(MASK) for seed in (1, 2, 3)]
    w = np.zeros(30, np.float32)
    population = trees.stack([hessian(regression, w, BATCHES, mask=mask) for mask in masks])
    start = jnp.ones(MASK.sum())
    run = jax.vmap(lambda operator: lanczos.scan(operator, start, KEY, steps=start.size))
    found = jax.device_get(jax.jit(run)(population))
    for mask, member in zip(masks, trees.unstack(found), strict=True):
        exact = np.linalg.eigvalsh(GRAM[np.ix_(mask, mask)])
        np.testing.assert_allclose(ritz(member).values, exact, atol=1e-5)


def test_a_basis_of_millions_of_weights_is_refused_before_anything_is_made():
    size = 25_000_000
    shapes = [jax.ShapeDtypeStruct((size,), dtype) for dtype in (jnp.float32, jnp.int32)]
    operator = Operator(
        shapes[0], (), (), shapes[1], shapes[1], shapes[0]
    )  # of shapes: nothing to multiply
    for measure in (landscape.extremes, landscape.density):
        with pytest.raises(ValueError, match=r"6400000000 bytes.*at most 21 steps of 25000000"):
            measure(operator, KEY)
    with pytest.raises(ValueError, match="25000000 rows, more than `limit` 10000"):
        landscape.eigenvalues(operator)


@pytest.mark.parametrize("exact_below", [4, 0])
def test_a_curvature_that_is_not_finite_is_refused(exact_below):
    # The loss and its gradient are finite at zero, its second derivative is not.
    operator = hessian(lambda w, x: jnp.mean(x) * jnp.sum(w**1.5), jnp.zeros(4), ONE)
    with pytest.raises(ValueError, match=r"must .* finite"):
        landscape.extremes(operator, KEY, exact_below=exact_below)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: landscape.extremes(a, KEY, tolerance=-1.0), "`tolerance` must be at least 0"),
        (lambda a: landscape.extremes(a, KEY, k=51), r"`k` must lie in \[1, 50\]"),
        (lambda a: landscape.extremes(a, KEY, k=0), r"`k` must lie in \[1, 50\]"),
        (lambda a: landscape.extremes(a, KEY, smallest=-1), r"`smallest` must lie in \[0, 50\]"),
        (lambda a: landscape.extremes(a, KEY, k=9, steps=8, exact_below=0), "`steps` must be at"),
        (lambda a: landscape.extremes(a, KEY, memory=100, exact_below=0), "`memory` allows 100"),
        (lambda a: landscape.extremes(a, KEY, steps=0, exact_below=0), "`steps` must lie"),
        (lambda a: landscape.density(a, KEY, probes=0), "`probes` must be"),
        (lambda a: landscape.density(a, KEY, width=0.0), "`width` must be"),
        (lambda a: landscape.dense(a, limit=49), "more than `limit` 49"),
        (lambda a: landscape.dense(a, chunk=0), "`chunk` must be"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call(diagonal(np.ones(50)))


def test_extremes_name_arguments_of_other_types_and_show_the_bounds():
    operator = diagonal(np.linspace(-1, 2, 6))
    with pytest.raises(TypeError, match=r"`key` must be a typed key \(jax.random.key\), not int"):
        landscape.extremes(operator, 0)
    with pytest.raises(TypeError, match=r"`operator` must be an `Operator`.*ArrayImpl"):
        landscape.extremes(jnp.eye(3), KEY)
    shown = repr(landscape.extremes(operator, KEY))
    assert re.match(r"Extremes\(largest 2 ± \de-\d+, smallest -1 ± \de-\d+, size=6, ", shown)
