"""Criteria that read the weights alone, against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.pruning import criteria, scopes

NOW = np.array([[0.5, -2.0, 0.25], [1.5, 0.0, -0.75]])
THEN = np.array([[-1.0, -1.0, 0.75], [2.0, 0.0, 0.5]])
FORMULAS = {
    "magnitude": lambda w, w0: np.abs(w),
    "small_final": lambda w, w0: -np.abs(w),
    "large_init": lambda w, w0: np.abs(w0),
    "small_init": lambda w, w0: -np.abs(w0),
    "large_init_large_final": lambda w, w0: np.minimum(np.abs(w), np.abs(w0)),
    "small_init_small_final": lambda w, w0: -np.maximum(np.abs(w), np.abs(w0)),
    "magnitude_increase": lambda w, w0: np.abs(w) - np.abs(w0),
    "movement": lambda w, w0: np.abs(w - w0),
    "large_final_same_sign": lambda w, w0: np.where(w * w0 > 0, np.abs(w), 0),
    "large_final_different_sign": lambda w, w0: np.where(w * w0 < 0, np.abs(w), 0),
}


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def all_kept(params):
    return jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", FORMULAS)
def test_scores_are_the_formula(name, dtype):
    # These numbers are exact in every dtype, so the scores must be exact too.
    params, initial = {"w": jnp.asarray(NOW, dtype)}, {"w": jnp.asarray(THEN, dtype)}
    scores = getattr(criteria, name)()(params, all_kept(params), initial=initial)["w"]
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(scores, FORMULAS[name](NOW, THEN))


@pytest.mark.parametrize("name", ["large_init_large_final", "small_init_small_final"])
def test_alpha_scales_the_final_magnitudes(name):
    params, initial = {"w": jnp.asarray(NOW)}, {"w": jnp.asarray(THEN)}
    scores = getattr(criteria, name)(alpha=2.0)(params, all_kept(params), initial=initial)["w"]
    np.testing.assert_array_equal(scores, FORMULAS[name](2 * NOW, THEN))


def test_a_difference_of_half_precision_weights_is_not_rounded():
    params, initial = {"w": jnp.array([1.0], jnp.float16)}, {"w": jnp.array([1e-4], jnp.float16)}
    score = criteria.movement()(params, all_kept(params), initial=initial)["w"][0]
    assert float(score) == pytest.approx(1 - float(initial["w"][0]), abs=1e-7)
    assert float(score) != 1.0


def lamp_by_hand(w, mask):
    """The definition, in quadratic time; of equals, the sum takes in those that come before."""
    w = np.where(mask, w, 0.0).ravel()
    scores = np.zeros(w.shape)
    for u in range(len(w)):
        above = [
            v for v in range(len(w)) if w[v] ** 2 > w[u] ** 2 or (w[v] ** 2 == w[u] ** 2 and v <= u)
        ]
        scores[u] = w[u] ** 2 / max(sum(w[v] ** 2 for v in above), 1e-30)
    return scores.reshape(mask.shape)


def test_lamp_is_its_definition_over_the_survivors():
    w = np.round(np.random.default_rng(0).normal(size=(5, 7)), 1)  # rounded, so that some are equal
    mask = np.random.default_rng(1).random((5, 7)) < 0.7
    scores = criteria.lamp()({"w": jnp.asarray(w, jnp.float32)}, {"w": jnp.asarray(mask)})["w"]
    np.testing.assert_allclose(
        np.where(mask, scores, 0), np.where(mask, lamp_by_hand(w, mask), 0), rtol=1e-5
    )


def test_lamp_scores_the_largest_weight_of_every_leaf_one_and_so_empties_no_layer():
    key = jax.random.key(0)
    params = {"a": 1e-3 * jax.random.normal(key, (4, 5)), "b": 1e3 * jax.random.normal(key, (6, 2))}
    scores = criteria.lamp()(params, all_kept(params))
    assert [float(s.max()) for s in scores.values()] == [1.0, 1.0]
    prunable = {"a": True, "b": True}
    select = jax.jit(lambda s, m, k: scopes.globally().select(s, m, k, prunable=prunable))
    mask = select(scores, all_kept(params), jnp.int32(2))
    assert [int(m.sum()) for m in mask.values()] == [1, 1]


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_lamp_stays_finite_where_squares_would_not(scale):
    params = {"w": jnp.array([3.0, 4.0]) * jnp.float32(scale)}
    scores = criteria.lamp()(params, all_kept(params))["w"]
    np.testing.assert_allclose(scores, [9 / 25, 1.0] if scale else [0.0, 0.0], rtol=1e-6)


def test_random_scores_are_uniform_and_independent_between_leaves_and_keys():
    params = {"a": jnp.zeros((100, 100)), "b": jnp.zeros((100, 100), jnp.bfloat16)}

    def draw(seed):
        return criteria.random()(params, all_kept(params), key=jax.random.key(seed))

    one, again, other = draw(0), draw(0), draw(1)
    assert one["b"].dtype == jnp.float32  # bfloat16 draws would nearly all be ties
    np.testing.assert_array_equal(one["a"], again["a"])
    for x, y in [(one["a"], one["b"]), (one["a"], other["a"])]:
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 0.05
    deciles = np.histogram(one["a"], bins=10, range=(0, 1))[0]
    assert deciles.sum() == 10_000 and np.abs(deciles - 1000).max() < 150


@pytest.mark.parametrize("name", [n for n in FORMULAS if n not in ("magnitude", "small_final")])
def test_missing_initial_weights_are_an_error(name):
    params = {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=f"`{name}` needs `initial`"):
        getattr(criteria, name)()(params, all_kept(params))


def test_initial_weights_of_another_shape_are_named():
    params = {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=r"`initial` at 'w' has shape \(3,\)"):
        criteria.movement()(params, all_kept(params), initial={"w": jnp.ones(3)})
