"""Movement pruning: what training accumulates is what the criterion reads."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.pruning import criteria

TARGET = jnp.array([3.0, 0.0, -1.0])


def loss(params):
    return 0.5 * jnp.sum((params["w"] - TARGET) ** 2)


def test_movement_is_accumulated_from_raw_gradients_along_the_way():
    optimizer = optax.chain(criteria.track_movement(), optax.clip(0.1), optax.sgd(0.5))
    params = {"w": jnp.array([1.0, 1.0, -1.0])}
    state, expected = optimizer.init(params), np.zeros(3)
    for _ in range(3):
        gradient = jax.grad(loss)(params)
        expected -= np.asarray(params["w"]) * np.asarray(gradient["w"])
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    accumulated = optax.tree.get(state, "movement")
    mask = {"w": jnp.ones(3, bool)}
    scores = criteria.movement_pruning(accumulated)(params, mask)["w"]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    # Away from zero, towards zero, nowhere.
    assert np.sign(scores).tolist() == [1.0, -1.0, 0.0]


def test_half_precision_products_accumulate_in_float32():
    transform = criteria.track_movement()
    params = {"w": jnp.array([1e-4], jnp.float16)}
    with jax.numpy_dtype_promotion("strict"):
        state = transform.init(params)
        _, state = transform.update({"w": jnp.array([1e-4], jnp.float16)}, state, params)
    np.testing.assert_allclose(state.movement["w"], [-1e-8], rtol=1e-2)


def test_the_transform_asks_for_the_weights():
    transform = criteria.track_movement()
    state = transform.init({"w": TARGET})
    with pytest.raises(ValueError, match="`track_movement` needs `params`"):
        transform.update({"w": TARGET}, state)


def test_scores_of_another_structure_are_refused():
    params = {"w": TARGET}
    with pytest.raises(ValueError, match="`accumulated` must have the structure of `params`"):
        criteria.movement_pruning({"v": TARGET})(params, {"w": jnp.ones(3, bool)})
