"""Recurrent networks against their equations, and the tied against the untied."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import trees
from lth_jax.measures.spectra import spectral_radius
from lth_jax.models import from_linen, gru_cell, lstm_cell, tanh_cell
from lth_jax.models.recurrent import RecurrentNet, orthogonal_gates

CELLS = {"tanh": tanh_cell, "gru": gru_cell, "lstm": lstm_cell}
WIDTH, TIME = 3, 4
TOKENS = jnp.array([[0, 3, 1, 4], [2, 2, 0, 1]])
every_cell = pytest.mark.parametrize("cell", CELLS)


def network(cell, **options):
    return from_linen(RecurrentNet(CELLS[cell], WIDTH, classes=2, vocabulary=5, **options))


def by_hand(cell, params, tokens):
    """The states h of all steps, one example after the other, in NumPy."""
    layer = jax.tree.map(np.float64, params["TiedLayer_0"])
    w, c, u = layer["Dense_0"]["kernel"], layer["Dense_0"]["bias"], layer["recurrent_kernel"]

    def gate(i, x, h):
        block = slice(i * WIDTH, (i + 1) * WIDTH)
        return x @ w[:, block] + c[block], h @ u[:, block]

    def sigmoid(pair):
        return 1 / (1 + np.exp(-sum(pair)))

    said = np.zeros((*tokens.shape, WIDTH))
    for n, row in enumerate(tokens):
        h = memory = np.zeros(WIDTH)
        for t, token in enumerate(row):
            x = np.float64(params["Embed_0"]["embedding"][token])
            if cell == "tanh":
                h = np.tanh(sum(gate(0, x, h)))
            elif cell == "gru":
                r, z, (inner, recurrent) = *(sigmoid(gate(i, x, h)) for i in (0, 1)), gate(2, x, h)
                h = (1 - z) * np.tanh(inner + r * recurrent) + z * h
            else:
                i, (f_in, f_rec), g, o = (gate(i, x, h) for i in range(4))
                memory = sigmoid((f_in, f_rec, 1)) * memory + sigmoid(i) * np.tanh(sum(g))
                h = sigmoid(o) * np.tanh(memory)
            said[n, t] = h
    return said


@every_cell
def test_it_is_its_equations(cell, filled):
    model = network(cell, every_step=True)
    params, state = filled(model, TOKENS)
    out, _ = model.apply(params, state, TOKENS, train=True)
    expected = by_hand(cell, params, np.asarray(TOKENS)) @ params["Dense_0"]["kernel"]
    np.testing.assert_allclose(out, expected + params["Dense_0"]["bias"], atol=1e-5)
    last, _ = network(cell).apply(params, state, TOKENS, train=False)
    np.testing.assert_allclose(last, out[:, -1], atol=1e-6)


def untie(params):
    """The untied network's parameters with the tied network's weights in every step."""
    layer = params["TiedLayer_0"]
    steps = {f"Dense_{t}": layer["Dense_0"] for t in range(TIME)}
    kernels = {f"recurrent_kernel_{t}": layer["recurrent_kernel"] for t in range(1, TIME)}
    rest = {name: params[name] for name in ("Embed_0", "Dense_0")}
    return {**rest, "UntiedLayer_0": {**steps, **kernels}}


@every_cell
def test_untied_with_the_same_weights_is_tied_and_its_gradients_add_up(cell, filled):
    tied, untied = network(cell), network(cell, tied=False)
    params, state = filled(tied, TOKENS)

    def loss(model, params):
        out, _ = model.apply(params, state, TOKENS, train=False)
        return (jnp.sin(out) ** 2).sum()

    shared, own = jax.jit(
        lambda p: (
            jax.value_and_grad(lambda p: loss(tied, p))(p),
            jax.value_and_grad(lambda p: loss(untied, p))(untie(p)),
        )
    )(params)
    np.testing.assert_allclose(shared[0], own[0], rtol=1e-5)
    # Copying is linear, and its transpose adds the gradients of the copies.
    (summed,) = jax.linear_transpose(untie, params)(own[1])
    for a, b in zip(jax.tree.leaves(shared[1]), jax.tree.leaves(summed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    example = jax.eval_shape(untied.init, jax.random.key(0), TOKENS)[0]
    trees.check_same_structure("untied", untie(params), "example", example)


@pytest.mark.parametrize(("cell", "gates"), [("tanh", 1), ("gru", 3), ("lstm", 4)])
def test_it_starts_with_orthogonal_blocks_and_one_bias_per_gate(cell, gates):
    params, _ = jax.jit(network(cell).init)(jax.random.key(0), TOKENS)
    layer = params["TiedLayer_0"]
    assert trees.size(layer) == gates * (WIDTH * WIDTH * 2 + WIDTH)
    blocks = np.split(np.asarray(layer["recurrent_kernel"]), gates, axis=1)
    np.testing.assert_allclose(spectral_radius(layer["recurrent_kernel"], gates), 1, atol=1e-5)
    for i, block in enumerate(blocks):
        np.testing.assert_allclose(block @ block.T, np.eye(WIDTH), atol=1e-5)
        assert not any(np.allclose(block, other) for other in blocks[:i])


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 5, 3)], ids=str)
def test_numbers_are_read_row_by_row(shape):
    model = from_linen(RecurrentNet(width=3, layers=2, classes=2))
    params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    assert params["TiedLayer_0"]["Dense_0"]["kernel"].shape == (int(np.prod(shape[2:])), 12)
    assert params["TiedLayer_1"]["Dense_0"]["kernel"].shape == (3, 12)


@pytest.mark.parametrize(
    ("vocabulary", "dtype"), [(None, jnp.int32), (5, jnp.float32)], ids=["tokens", "numbers"]
)
def test_a_vocabulary_goes_with_tokens(vocabulary, dtype):
    model = from_linen(RecurrentNet(vocabulary=vocabulary))
    with pytest.raises(ValueError, match=r"`vocabulary` must be a number for integer inputs"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 3), dtype))


@pytest.mark.slow
def test_many_kernels_are_drawn_at_once_without_an_end_to_waiting():
    """Batched decompositions side by side hang on a CPU with two threads (jaxlib 0.10.2)."""
    draw = orthogonal_gates(1)
    keys = jax.random.split(jax.random.key(0), (8, 10))
    kernels = jax.jit(jax.vmap(lambda each: [draw(key, (48, 48)) for key in each]))
    for _ in range(100):
        found = jax.block_until_ready(kernels(keys))
    first = found[0][0]
    np.testing.assert_allclose(first @ first.T, np.eye(48), atol=1e-5)
    assert "while" in kernels.lower(keys).as_text()  # a loop, not a batch
