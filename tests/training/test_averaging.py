"""The mean of the weights, for members that begin to average at steps of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.pruning.transforms import masked
from lth_jax.training.averaging import average_of, averaged

STEPS = 9
MASK = {"w": jnp.array([True, False, True])}
START = {"w": jnp.array([1.0, 0.0, -2.0])}


def path(tx):
    """The weights after each step on |w + ½|² from START, and the optimizer's last state."""

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(lambda w: 2 * w + 1, params)
        updates, state = tx.update(grads, state, params, mask=MASK)
        params = optax.apply_updates(params, updates)
        return (params, state), params["w"]

    (_, state), weights = jax.lax.scan(step, (START, tx.init(START)), None, STEPS)
    return weights, state


@jax.jit
@jax.vmap
def members(start, every):
    weights, state = path(averaged(masked(optax.adam(0.1)), start=start, every=every))
    return weights, average_of(state)["w"]


def test_each_member_averages_what_it_is_told():
    starts, everies = jnp.array([1, 3, 9, 2]), jnp.array([1, 2, 5, 7])
    weights, means = members(starts, everies)
    plain, _ = path(masked(optax.adam(0.1)))
    for i, (start, every) in enumerate(zip(starts.tolist(), everies.tolist(), strict=True)):
        np.testing.assert_allclose(weights[i], plain, rtol=1e-6)  # training is not touched
        counted = np.asarray(weights[i], np.float64)[start - 1 :: every]
        np.testing.assert_allclose(means[i], counted.mean(axis=0), rtol=1e-5)
    assert (means[:, 1] == 0).all()  # what is pruned


def test_before_it_begins_the_mean_is_the_first_weights():
    _, mean = members(jnp.array([STEPS + 1]), jnp.array([1]))
    np.testing.assert_array_equal(mean[0], START["w"])


def test_a_state_without_averages_is_refused():
    with pytest.raises(ValueError, match=r"`opt_state` must hold one state of `averaged`, .* 0"):
        average_of(optax.adam(0.1).init(START))


def test_strict_dtype_promotion_holds():
    tx = averaged(optax.sgd(0.1), start=jnp.int32(2), every=jnp.int32(2))
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    with jax.numpy_dtype_promotion("strict"):
        state = jax.eval_shape(lambda p: tx.update(p, tx.init(p), p)[1], params)
    assert average_of(state)["w"].dtype == jnp.bfloat16
