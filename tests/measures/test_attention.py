"""Entropies of known rows, and importances against removal and explicit gates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.measures.attention import attention_entropy, head_importance


def test_entropy_is_its_formula_per_head():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=(2, 3, 5))  # examples, heads, queries
    expected = -(p * np.log(p)).sum(-1).mean((0, 2)) / np.log(4)
    np.testing.assert_allclose(attention_entropy(p), expected, rtol=1e-12)


def test_entropy_is_measured_by_the_visible_keys():
    """Half of a query's two visible keys is full entropy, though six keys are hidden."""
    causal = np.tril(np.ones((8, 8), bool))
    even = causal / causal.sum(1, keepdims=True)
    np.testing.assert_allclose(attention_entropy(even[None], causal), 1.0)
    assert attention_entropy(even[None])[0] < 0.7
    p = np.eye(8)
    p[7] = even[7]
    np.testing.assert_allclose(attention_entropy(p[None], causal), 1 / 7)  # of queries 1 to 7


def test_keys_may_be_hidden_per_example():
    p = np.full((2, 1, 3, 4), 0.25)
    p[1] = [0.5, 0.5, 0, 0]
    visible = np.ones((2, 1, 1, 4), bool)
    visible[1, ..., 2:] = False
    np.testing.assert_allclose(attention_entropy(p, visible), 1.0)


def test_without_a_choice_there_is_no_entropy():
    assert np.isnan(attention_entropy(np.ones((2, 1, 1)))).all()


@pytest.mark.parametrize(
    ("p", "visible", "message"),
    [
        (np.full((1, 2, 2), 0.4), None, "must have sum 1"),
        (np.full((1, 2, 2), 0.5), np.eye(2, dtype=bool), "not `visible`"),
    ],
    ids=["sums", "hidden"],
)
def test_what_is_no_attention_is_refused(p, visible, message):
    with pytest.raises(ValueError, match=message):
        attention_entropy(p, visible)


HEADS = {"out": 3}
X = jnp.float32(np.random.default_rng(1).normal(size=(5, 6)))
PARAMS = {"out": jnp.float32(np.random.default_rng(2).normal(size=(6, 2))), "bias": jnp.ones(2)}


def loss(params, x):
    return jnp.mean(jnp.sum(jnp.tanh(x @ params["out"] + params["bias"]) ** 2, axis=-1))


def test_importance_is_the_mean_slope_of_a_gate():
    def gated(gates, x):
        return loss(PARAMS | {"out": PARAMS["out"] * jnp.repeat(gates, 2)[:, None]}, x[None])

    slope = jax.jit(jax.grad(gated))
    expected = np.mean([np.abs(slope(jnp.ones(3), x)) for x in X], axis=0)
    found = jax.jit(lambda p: head_importance(loss, p, X, HEADS))(PARAMS)
    assert list(found) == ["out"]
    np.testing.assert_allclose(found["out"], expected, rtol=1e-5)
    assert len(np.unique(expected)) == 3


def test_importance_reads_kernels_of_either_shape():
    def flax_loss(params, x):
        return loss(params | {"out": params["out"].reshape(6, 2)}, x)

    ours = head_importance(loss, PARAMS, X, HEADS)["out"]
    with jax.numpy_dtype_promotion("strict"):
        flax = PARAMS | {"out": PARAMS["out"].reshape(3, 2, 2)}
        np.testing.assert_array_equal(head_importance(flax_loss, flax, X, HEADS)["out"], ours)


def test_a_silent_head_has_no_importance():
    silent = PARAMS | {"out": PARAMS["out"].at[2:4].set(0.0)}
    found = head_importance(loss, silent, X, HEADS)["out"]
    assert found[1] == 0 and found[0] > 0 and found[2] > 0


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"in": 2}, r"`heads` names 'in', which is not one of"),
        ({"out": 4}, r"does not divide its 6"),
    ],
)
def test_wrong_heads_are_refused(heads, message):
    with pytest.raises(ValueError, match=message):
        head_importance(loss, PARAMS, X, heads)
