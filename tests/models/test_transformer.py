"""Transformers: attention against flax's own, nothing leaks from the future, all can be seen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lth_jax import trees
from lth_jax.measures.attention import attention_entropy, head_importance
from lth_jax.models import MLP, Transformer, attention_probabilities, from_linen, layer_outputs
from lth_jax.models.transformer import Attention

WIDTH, HEADS, TIME = 6, 3, 4
SIZE = {"width": WIDTH, "heads": HEADS, "hidden": 10, "classes": 2, "layers": 1}
X = jnp.float32(np.random.default_rng(0).normal(size=(2, TIME, 5)))


def as_flax(params):
    """The parameters of `Attention` in the shapes of `nn.MultiHeadDotProductAttention`."""
    split = {
        name: {
            "kernel": params[name]["kernel"].reshape(WIDTH, HEADS, -1),
            "bias": params[name]["bias"].reshape(HEADS, -1),
        }
        for name in ("query", "key", "value")
    }
    out = params["out"] | {"kernel": params["out"]["kernel"].reshape(HEADS, -1, WIDTH)}
    return {**split, "out": out}


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_that_of_flax(causal):
    rng = np.random.default_rng(1)
    x = jnp.float32(rng.normal(size=(2, TIME, WIDTH)))
    mask = jnp.tril(jnp.ones((TIME, TIME), bool)) if causal else None
    shapes = jax.eval_shape(Attention(HEADS).init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), shapes)
    flax = nn.MultiHeadDotProductAttention(HEADS)

    @jax.jit
    def both(params):
        theirs = flax.apply({"params": as_flax(params)}, x, mask=mask)
        return Attention(HEADS).apply({"params": params}, x, mask), theirs

    np.testing.assert_allclose(*both(params), atol=1e-5)


@pytest.fixture(scope="module", params=[False, True], ids=["encoder", "decoder"])
def looked_at(request, filled):
    """`causal`, how outputs at each position move with each input, and the probabilities."""
    module = Transformer(**SIZE, causal=request.param, every_step=True)
    model = from_linen(module)
    params, state = filled(model, X)

    @jax.jit
    def run(params):
        def said(x):
            return model.apply(params, state, x, train=False)[0].sum(axis=(0, 2))

        return jax.jacrev(said)(X), attention_probabilities(module, params, state, X)

    jacobian, found = run(params)
    return request.param, np.abs(jacobian).sum(axis=(1, 3)), found["TransformerBlock_0/Attention_0"]


@pytest.mark.parametrize("keys", [1, 2, TIME])
def test_a_query_attends_to_the_keys_of_its_largest_scores(keys, filled):
    point = filled(from_linen(Transformer(**SIZE)), X)
    whole, few = (
        next(iter(attention_probabilities(module, *point, X).values()))
        for module in (Transformer(**SIZE), Transformer(**SIZE, top_k=keys))
    )
    order = np.argsort(-np.asarray(whole), axis=-1)[..., :keys]
    kept = np.zeros(whole.shape)
    np.put_along_axis(kept, order, np.take_along_axis(np.asarray(whole), order, -1), -1)
    np.testing.assert_allclose(few, kept / kept.sum(-1, keepdims=True), atol=1e-5)


def test_nothing_leaks_from_the_future_of_a_decoder(looked_at):
    causal, influence, _ = looked_at
    later = np.triu(np.ones((TIME, TIME), bool), 1)
    assert (influence[~later] > 0).all()
    assert ((influence[later] == 0) == causal).all()


def test_probabilities_of_every_head(looked_at):
    causal, _, p = looked_at
    assert p.shape == (2, HEADS, TIME, TIME)
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)
    assert bool((np.triu(p, 1) == 0).all()) is causal
    assert not np.allclose(p[:, 0], p[:, 1])
    entropy = attention_entropy(p, np.tril(np.ones((TIME, TIME), bool)) if causal else None)
    assert ((entropy > 0) & (entropy < 1)).all()


def test_probabilities_of_every_layer():
    module = Transformer(**SIZE | {"layers": 2})
    params, state = jax.eval_shape(from_linen(module).init, jax.random.key(0), X)
    look = functools.partial(attention_probabilities, module)
    found = jax.eval_shape(look, params, state, X)
    assert list(found) == [f"TransformerBlock_{i}/Attention_0" for i in range(2)]


def test_probabilities_are_softmaxes_of_queries_and_keys(filled):
    module = Transformer(**SIZE)
    params, state = filled(from_linen(module), X)

    @jax.jit
    def run(params):
        outputs = layer_outputs(module, params, state, X)
        return outputs, attention_probabilities(module, params, state, X)

    outputs, found = run(params)
    name = "TransformerBlock_0/Attention_0"
    split = {q: outputs[f"{name}/{q}"].reshape(2, TIME, HEADS, -1) for q in ("query", "key")}
    scores = np.einsum("bqhd,bkhd->bhqk", split["query"], split["key"]) / np.sqrt(WIDTH / HEADS)
    np.testing.assert_allclose(found[name], jax.nn.softmax(scores), atol=1e-5)


def test_heads_are_the_rows_of_the_output_kernel(filled):
    """Without its rows there, a head is silent, and its importance is zero."""
    model = from_linen(Transformer(**SIZE))
    params, state = filled(model, X)
    name = "TransformerBlock_0/Attention_0/out/kernel"
    rows = jnp.arange(WIDTH)[:, None] // (WIDTH // HEADS)
    silent = trees.map_named(lambda n, p: jnp.where(rows != 1, p, 0.0) if n == name else p, params)

    @jax.jit
    def importance(params):
        def loss(params, x):
            return (model.apply(params, state, x, train=False)[0] ** 2).mean()

        return head_importance(loss, params, X, {name: HEADS})[name]

    found = importance(silent)
    assert found[1] == 0 and found[0] > 0 and found[2] > 0
    assert (importance(params) > 0).all()


def test_a_network_without_attention_has_no_probabilities():
    with pytest.raises(ValueError, match=r"`module` must sow attention probabilities, but MLP"):
        attention_probabilities(
            MLP((2,)), {"Dense_0": {"kernel": jnp.ones((20, 2)), "bias": jnp.zeros(2)}}, {}, X
        )


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"causal": True}, (2, 2)),
        ({}, (2, 2)),
        ({"causal": True, "every_step": True}, (2, TIME, 2)),
    ],
    ids=str,
)
def test_what_is_read(options, shape, filled):
    """The last position of a decoder, the mean over an encoder's, or all of them."""
    every = from_linen(Transformer(**SIZE, causal=options.get("causal", False), every_step=True))
    params, state = jax.eval_shape(every.init, jax.random.key(0), X)
    model = from_linen(Transformer(**SIZE, **options))
    trees.check_same_structure(
        "params", jax.eval_shape(model.init, jax.random.key(0), X)[0], "all", params
    )
    out = jax.eval_shape(lambda p: model.apply(p, state, X, train=False)[0], params)
    assert out.shape == shape


def test_tokens_have_positions(filled):
    """The outputs of two equal tokens differ, because their positions do."""
    model = from_linen(Transformer(**SIZE, vocabulary=3, every_step=True))
    tokens = jnp.ones((1, 2), jnp.int32)
    params, state = filled(model, tokens)
    ((first, second),) = jax.jit(lambda p: model.apply(p, state, tokens, train=False)[0])(params)
    assert not np.allclose(first, second, atol=1e-3)


def test_heads_must_divide_the_width():
    model = from_linen(Transformer(width=6, heads=4))
    with pytest.raises(ValueError, match=r"`heads` must divide the width 6, got 4"):
        jax.eval_shape(model.init, jax.random.key(0), X)
