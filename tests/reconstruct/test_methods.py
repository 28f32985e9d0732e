"""Methods of one layer against closed forms, exhaustive search and definitions in float64."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.reconstruct import Pattern, layer_error, methods
from lth_jax.reconstruct.keep import in_rows
from lth_jax.reconstruct.methods.method import damped, inverse_factor
from tests.thinning import thinned

ALL = dict(methods.METHODS)
MORE = {**ALL, "in_blocks": partial(methods.sparse_gpt, block=5)}
UPDATE = {name: build for name, build in ALL.items() if name not in ("magnitude", "wanda")}
INPUTS, OUTPUTS = 12, 5
KEEPS = {
    "layer": jnp.int32(23),
    "output": jnp.array([0, 12, 3, 5, 7], jnp.int32),
    "pattern": Pattern(2, 4),
    "mask": jax.random.bernoulli(jax.random.key(3), 0.4, (INPUTS, OUTPUTS)),
}


def layer(key, inputs=INPUTS, outputs=OUTPUTS, decay=1.0):
    """Random weights, and the Gram matrix of correlated inputs."""
    turn, rows, weights = jax.random.split(key, 3)
    basis = jnp.linalg.qr(jax.random.normal(turn, (inputs, inputs)))[0]
    scales = jnp.arange(1, inputs + 1.0) ** -decay
    x = jax.random.normal(rows, (4 * inputs, inputs)) @ (basis * scales) @ basis.T
    return jax.random.normal(weights, (inputs, outputs)), x.T @ x


def objective(weights, new, hessian):
    change = np.float64(new) - np.float64(weights)
    return float(np.sum(change * (np.float64(hessian) @ change)))


def best_on(weights, hessian, mask):
    """The definition of a refit, output by output in float64."""
    h, out = np.float64(hessian), np.zeros(weights.shape)
    target = h @ np.float64(weights)
    for j in range(weights.shape[1]):
        s = np.flatnonzero(mask[:, j])
        out[s, j] = np.linalg.solve(h[np.ix_(s, s)], target[s, j])
    return out


@pytest.mark.parametrize("name, kind", thinned(itertools.product(MORE, KEEPS), 5))
def test_counts_are_exact_and_pruned_weights_are_zero(name, kind):
    weights, gram = layer(jax.random.key(0))
    keep = KEEPS[kind]
    new, mask = MORE[name]()(weights, gram, keep)
    if isinstance(keep, Pattern):
        assert (mask.reshape(3, 4, OUTPUTS).sum(1) == 2).all()
    elif keep.ndim == 2:
        assert (mask == keep).all()
    else:
        assert (mask.sum(0 if keep.ndim else None) == keep).all()
    assert (new[~mask] == 0).all() and jnp.isfinite(new).all() and new.dtype == weights.dtype
    again = MORE[name]()(weights, gram, keep)[0]
    np.testing.assert_array_equal(new, again)
    if name in ("magnitude", "wanda"):
        np.testing.assert_array_equal(new, jnp.where(mask, weights, 0))


@pytest.mark.parametrize("name", thinned(ALL, 6))
def test_replicates_share_one_program_and_may_differ_in_counts(name):
    weights, grams = jax.vmap(layer)(jax.random.split(jax.random.key(1), 3))
    counts = jnp.array([10, 30, 50], jnp.int32)
    new, masks = jax.vmap(ALL[name]())(weights, grams, counts)
    assert masks.sum((1, 2)).tolist() == [10, 30, 50]
    for k in range(3):
        alone, mask = ALL[name]()(weights[k], grams[k], counts[k])
        np.testing.assert_array_equal(masks[k], mask)
        np.testing.assert_allclose(new[k], alone, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", UPDATE)
def test_with_orthogonal_inputs_every_method_is_magnitude_pruning_without_an_update(name):
    weights, _ = layer(jax.random.key(2))
    gram = 7 * jnp.eye(INPUTS)
    expected, mask = methods.magnitude()(weights, gram, 20)
    new, found = ALL[name](damping=0)(weights, gram, 20)
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", UPDATE)
def test_one_removed_weight_follows_the_formula_of_optimal_brain_surgeon(name):
    weights, gram = layer(jax.random.key(4), outputs=1, decay=0.3)
    inverse = np.linalg.inv(np.float64(gram))
    w = np.float64(weights[:, 0])
    p = int(np.argmin(w**2 / np.diag(inverse)))
    expected = w - w[p] / inverse[p, p] * inverse[:, p]
    # SparseGPT takes the inputs in order, and is exact where the removed one is the first.
    order = np.r_[p, np.delete(np.arange(INPUTS), p)] if name == "sparse_gpt" else np.arange(INPUTS)
    keep = jnp.int32(INPUTS - 1) if name == "obs" else jnp.asarray(order != p)[:, None]
    new, mask = ALL[name](damping=0)(weights[order], gram[order][:, order], keep)
    assert mask[:, 0].tolist() == (order != p).tolist()
    np.testing.assert_allclose(new[:, 0], expected[order], rtol=1e-3, atol=1e-3)


TINY = {"count": (4, 2, 3), "pattern": (4, 2, Pattern(1, 2))}


@pytest.mark.parametrize("kind", thinned(TINY, 2))
@pytest.mark.slow
def test_no_method_beats_the_best_of_all_masks_and_its_refit_reaches_it(kind):
    inputs, outputs, keep = TINY[kind]

    def allowed(mask):
        if isinstance(keep, Pattern):
            return (mask.reshape(2, 2, outputs).sum(1) == 1).all()
        return mask.sum() == keep

    for seed in range(2):
        weights, gram = layer(jax.random.key(seed), inputs, outputs)
        every = itertools.product((False, True), repeat=inputs * outputs)
        masks = [m for m in (np.reshape(bits, (inputs, outputs)) for bits in every) if allowed(m)]
        errors = [objective(weights, best_on(weights, gram, m), gram) for m in masks]
        best = masks[int(np.argmin(errors))]
        for build in ALL.values():
            new, _ = (build(damping=0) if build in UPDATE.values() else build())(
                weights, gram, keep
            )
            assert objective(weights, new, gram) >= min(errors) * (1 - 1e-4)
        refitted, _ = methods.refit(damping=0)(weights, gram, jnp.asarray(best))
        np.testing.assert_allclose(objective(weights, refitted, gram), min(errors), rtol=1e-3)


CHEAP_BEHIND_DEAR = jnp.array([[1.0, 0.35], [1.0, 5.0]]), jnp.array([[1.0, -0.9], [-0.9, 1.0]])


@pytest.mark.parametrize(
    "weights, gram, keep",
    [(*layer(jax.random.key(5), outputs=2, decay=0.5), 9), (*CHEAP_BEHIND_DEAR, 3)],
    ids=["random", "cheap_behind_dear"],
)
def test_obs_removes_what_costs_least_each_time(weights, gram, keep):
    hessian = damped(gram, 0.01)
    mask = np.ones(weights.shape, bool)
    while mask.sum() > keep:
        costs = {}
        for p in zip(*np.nonzero(mask), strict=True):
            trial = mask.copy()
            trial[p] = False
            costs[p] = objective(weights, best_on(weights, hessian, trial), hessian)
        mask[min(costs, key=costs.get)] = False
    new, found = methods.obs()(weights, gram, keep)
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_allclose(new, best_on(weights, hessian, mask), rtol=1e-3, atol=1e-4)


def test_sparse_gpt_is_its_definition_input_by_input():
    weights, gram = layer(jax.random.key(6))
    hessian, w = np.float64(damped(gram, 0.01)), np.float64(weights)
    mask = np.asarray(KEEPS["mask"])
    for i in range(INPUTS):
        inverse = np.linalg.inv(hessian[i:, i:])
        removed = np.where(mask[i], 0, w[i])
        w[i:] -= np.outer(inverse[:, 0] / inverse[0, 0], removed)
    for block in (1, 5, 12, 128):
        new, _ = methods.sparse_gpt(block=block)(weights, gram, KEEPS["mask"])
        np.testing.assert_allclose(new, np.where(mask, w, 0), rtol=1e-3, atol=1e-4)


def test_the_factor_is_the_upper_one_of_the_inverse():
    _, gram = layer(jax.random.key(7))
    hessian = damped(gram, 0.01)
    expected = np.linalg.cholesky(np.linalg.inv(np.float64(hessian))).T
    np.testing.assert_allclose(inverse_factor(hessian), expected, rtol=1e-3, atol=1e-3)
    amount = 0.01 * np.trace(gram) / INPUTS
    np.testing.assert_allclose(hessian - gram, amount * np.eye(INPUTS), atol=1e-4)
    assert np.linalg.cond(np.float64(hessian)) <= 1 + INPUTS / 0.01


def test_a_refit_is_least_squares_and_never_worse_than_the_mask_alone():
    for seed in range(4):
        weights, gram = layer(jax.random.key(seed))
        mask = jax.random.bernoulli(jax.random.key(seed), 0.5, weights.shape)
        for damping in (0, 0.01):
            hessian = damped(gram, damping)
            new, _ = methods.refit(damping=damping)(weights, gram, mask)
            expected = best_on(weights, hessian, np.asarray(mask))
            found = objective(weights, new, hessian)
            np.testing.assert_allclose(found, objective(weights, expected, hessian), rtol=1e-3)
            assert found <= objective(weights, jnp.where(mask, weights, 0), hessian)


def test_a_refit_of_any_choice_keeps_the_mask_of_that_choice():
    weights, gram = layer(jax.random.key(8))
    _, mask = methods.magnitude()(weights, gram, 20)
    _, found = methods.refit(methods.magnitude())(weights, gram, 20)
    np.testing.assert_array_equal(found, mask)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [10, 30])
@pytest.mark.parametrize("decay", [0.3, 1.0])
def test_methods_rank_as_published(decay, keep):
    weights, grams = jax.vmap(partial(layer, decay=decay))(jax.random.split(jax.random.key(9), 32))
    errors = {}
    for name, build in ALL.items():
        new, _ = jax.vmap(build(), (0, 0, None))(weights, grams, jnp.int32(keep))
        errors[name] = jax.vmap(layer_error)(weights, new, grams)
    mean = {name: float(e.mean()) for name, e in errors.items()}
    assert mean["obs"] < mean["sparse_gpt"] < mean["wanda"] < mean["magnitude"]
    assert mean["refit"] < mean["wanda"] and mean["alps"] < mean["sparse_gpt"]
    assert (errors["alps"] <= errors["sparse_gpt"]).mean() >= 0.95


def test_alps_is_never_worse_than_a_refit_of_wanda():
    for seed in range(6):
        weights, gram = layer(jax.random.key(seed), 4, 2)
        hessian = damped(gram, 0.01)
        ours, other = (m()(weights, gram, 3)[0] for m in (methods.alps, methods.refit))
        assert objective(weights, ours, hessian) <= 1.001 * objective(weights, other, hessian)


def test_errors_are_those_of_the_outputs():
    w, x = (
        jax.random.normal(jax.random.key(0), (4, 3)),
        jax.random.normal(jax.random.key(1), (9, 4)),
    )
    new = w.at[0].set(0)
    expected = jnp.sum((x @ (w - new)) ** 2) / jnp.sum((x @ w) ** 2)
    np.testing.assert_allclose(layer_error(w, new, x.T @ x), expected, rtol=1e-5)
    assert layer_error(w, w, x.T @ x) == 0 == layer_error(0 * w, 0 * w, x.T @ x)


def test_shares_of_rows_sum_to_the_count_and_fit():
    for inputs, outputs, block in ((7, 3, 2), (12, 1, 5), (40_000, 9, 128)):
        starts = np.arange(0, inputs, block)
        ends = np.minimum(starts + block, inputs)
        for count in {0, 1, inputs * outputs // 3, inputs * outputs - 1, inputs * outputs}:
            shares = np.asarray(in_rows(count, jnp.asarray(starts), jnp.asarray(ends), inputs))
            assert shares.sum() == count and (shares >= 0).all()
            assert (shares <= (ends - starts) * outputs).all()


@pytest.mark.slow
def test_lower_precision_is_computed_in_float32_and_rounded_at_the_end():
    weights, gram = layer(jax.random.key(0))
    for dtype in (jnp.bfloat16, jnp.float16):
        low = weights.astype(dtype)
        new, mask = methods.sparse_gpt()(low, gram, 20)
        expected, same = methods.sparse_gpt()(low.astype(jnp.float32), gram, 20)
        assert new.dtype == dtype and (mask == same).all()
        np.testing.assert_array_equal(new, expected.astype(dtype))


BAD = {
    "square": (lambda m: m(jnp.ones((3, 2)), jnp.eye(2), 1), ValueError, "`gram` .inputs, inputs."),
    "integers": (lambda m: m(jnp.ones((3, 2), int), jnp.eye(3), 1), TypeError, "dtype int32"),
    "many": (lambda m: m(jnp.ones((3, 2)), jnp.eye(3), 7), ValueError, "between 0 and 6"),
    "few": (lambda m: m(jnp.ones((3, 2)), jnp.eye(3), np.array([0, -1])), ValueError, "is -1"),
    "share": (lambda m: m(jnp.ones((3, 2)), jnp.eye(3), 0.5), TypeError, "whole number"),
    "shape": (lambda m: m(jnp.ones((3, 2)), jnp.eye(3), np.ones(3, int)), ValueError, r"\(3,\)"),
    "floats": (lambda m: m(jnp.ones((3, 2)), jnp.eye(3), jnp.ones((3, 2))), TypeError, "boolean"),
    "uneven": (lambda m: m(jnp.ones((3, 2)), jnp.eye(3), Pattern(1, 2)), ValueError, "divide 3"),
    "pattern": (lambda m: Pattern(3, 2), ValueError, "1 ≤ n ≤ m"),
    "wide": (
        lambda m: m(*(jax.ShapeDtypeStruct(s, "float32") for s in ((70_000, 1), (70_000,) * 2)), 1),
        ValueError,
        "70000 inputs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("call, error, words", BAD.values(), ids=BAD)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call(methods.magnitude())


@pytest.mark.parametrize("name", UPDATE)
@pytest.mark.parametrize("damping", [-0.1, float("nan"), float("inf")])
def test_damping_must_be_a_share(name, damping):
    with pytest.raises(ValueError, match="`damping` must be a finite number of at least 0"):
        ALL[name](damping=damping)


def test_options_of_methods_are_checked():
    for build in (partial(methods.sparse_gpt, block=0), partial(methods.alps, penalty=0)):
        with pytest.raises(ValueError, match="must be"):
            build()


@pytest.mark.parametrize("name", ALL)
def test_a_gram_matrix_that_is_not_finite_gives_nan(name):
    gram = jnp.eye(6).at[2, 2].set(jnp.nan)
    new, mask = ALL[name]()(jnp.ones((6, 4)), gram, 12)
    assert jnp.isnan(new[mask]).all()


@pytest.mark.parametrize("name", ["obs", "sparse_gpt"])
def test_a_singular_gram_matrix_gives_nan(name):
    gram = jnp.ones((6, 6))
    for method in (ALL[name](damping=0), methods.refit(ALL[name](damping=0))):
        new, mask = method(jnp.ones((6, 4)), gram, 12)
        assert jnp.isnan(new[mask]).all()


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e18])
def test_errors_do_not_depend_on_scales_and_keep_nan(scale):
    w, gram = jnp.full((4, 1), scale), 100 * jnp.eye(4)
    error = layer_error(w, w.at[0].set(0), gram)
    np.testing.assert_allclose(error, 0.25, rtol=1e-6)
    assert layer_error(w, w, gram) == layer_error(0 * w, 0 * w, gram) == 0
    assert jnp.isnan(layer_error(w, w.at[1].set(jnp.nan), gram))
    assert jnp.isnan(layer_error(w, w.at[0].set(0), gram.at[0, 0].set(jnp.nan)))
