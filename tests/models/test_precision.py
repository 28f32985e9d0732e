"""Mixed precision: narrow inside, float32 outside."""

import chex
import jax
import jax.numpy as jnp
import pytest

from lth_jax.models import MLP, ResNet, compute_in, from_linen

X = jax.random.normal(jax.random.key(0), (4, 6))


def test_the_network_computes_in_bfloat16_and_gradients_are_float32():
    exact = from_linen(MLP((8, 3)))
    model = compute_in(exact, jnp.bfloat16)
    params, state = model.init(jax.random.key(1), X)
    chex.assert_trees_all_equal(params, exact.init(jax.random.key(1), X)[0])

    def loss(params, model):
        return jnp.mean(model.apply(params, state, X, train=True)[0] ** 2)

    text = str(jax.make_jaxpr(lambda p: loss(p, model))(params))
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 2 and all(":bf16[" in line for line in products)
    narrow, wide = (jax.jit(jax.grad(loss), static_argnums=1)(params, m) for m in (model, exact))
    chex.assert_trees_all_equal_dtypes(narrow, params)
    chex.assert_trees_all_close(narrow, wide, atol=0.02)
    assert any(jnp.any(a != b) for a, b in zip(*map(jax.tree.leaves, (narrow, wide)), strict=True))


def test_the_statistics_of_batch_norm_stay_float32():
    model = compute_in(from_linen(ResNet(blocks=(1,), width=4, classes=3)), jnp.bfloat16)
    x = jnp.ones((2, 4, 4, 1))
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    out, after = jax.eval_shape(
        lambda p, s: model.apply(p, s, x, key=jax.random.key(0), train=True), params, state
    )
    assert out.dtype == jnp.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


def test_integers_pass_through_and_float32_is_the_model_itself():
    seen = []

    def apply(params, state, x, *, key=None, train):
        seen.append((params.dtype, x.dtype))
        return params[x], state

    model = from_linen(MLP((2,)))._replace(apply=apply)
    compute_in(model, jnp.bfloat16).apply(jnp.ones(3), {}, jnp.arange(2), train=False)
    assert seen == [(jnp.bfloat16, jnp.int32)]
    assert compute_in(model, "float32") is model
    with pytest.raises(ValueError, match="`dtype` must be a floating type, got int8"):
        compute_in(model, jnp.int8)


def test_strict_promotion_holds():
    model = compute_in(from_linen(MLP((8, 3))), jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        params, state = jax.eval_shape(model.init, jax.random.key(0), X)
        jax.eval_shape(lambda p: model.apply(p, state, X, train=True), params)
