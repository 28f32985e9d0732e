"""Kernels that PyTorch arranges differently, biases of several axes, masks that are not bool."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lth_jax as lth
from lth_jax import exchange, layouts, trees
from tests.exchange.test_files import assert_same

KEY = jax.random.key(0)
X, IMAGE = jnp.ones((2, 6)), jnp.ones((2, 5, 5, 4))
TRANSPOSED, GATED = "a transposed convolution", "a gated recurrent cell"


def linen(module, *args):
    params = module.init(KEY, *args)["params"]
    return params, layouts.of_linen(module, *args)


def linen_cell(cell, x=X):
    return linen(cell, cell.initialize_carry(KEY, x.shape), x)


def of_nnx(make):
    module = make(nnx.Rngs(0))
    return nnx.to_pure_dict(nnx.state(module, nnx.Param)), layouts.of_nnx(module)


def equinox(make):
    module = make(key=KEY)
    return eqx.filter(module, eqx.is_inexact_array), layouts.of_equinox(module)


def haiku(call, x):
    init = hk.transform(call).init
    return init(KEY, x), layouts.of_haiku(init, x)


def haiku_cell(make, x):
    def call(x):
        core = make()
        return core(x, core.initial_state(len(x)))[0]

    return haiku(call, x)


def keras(make, shape):
    networks = pytest.importorskip("tests.keras_networks")
    model = networks.keras.Sequential([networks.keras.Input(shape), make(networks.kl)])
    params = {variable.path: np.asarray(variable.value) for variable in model.trainable_variables}
    return params, layouts.of_keras(model)


class Stacked(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.LSTMCell(4))(x)


UNMAPPED = {
    "linen transpose": (TRANSPOSED, lambda: linen(nn.ConvTranspose(3, (2, 2)), IMAGE)),
    "linen transpose_kernel": (
        TRANSPOSED,
        lambda: linen(nn.ConvTranspose(3, (2,), transpose_kernel=True), IMAGE[0]),
    ),
    "linen lstm": (GATED, lambda: linen_cell(nn.LSTMCell(4))),
    "linen optimized lstm": (GATED, lambda: linen_cell(nn.OptimizedLSTMCell(4))),
    "linen gru": (GATED, lambda: linen_cell(nn.GRUCell(4))),
    "linen mgu": (GATED, lambda: linen_cell(nn.MGUCell(4))),
    "linen conv lstm": (GATED, lambda: linen_cell(nn.ConvLSTMCell(4, (3, 3)), IMAGE)),
    "linen rnn": (GATED, lambda: linen(Stacked(), jnp.ones((2, 3, 6)))),
    "nnx transpose": (
        TRANSPOSED,
        lambda: of_nnx(lambda rngs: nnx.ConvTranspose(4, 3, (2, 2), rngs=rngs)),
    ),
    "nnx lstm": (GATED, lambda: of_nnx(lambda rngs: nnx.LSTMCell(6, 4, rngs=rngs))),
    "nnx optimized lstm": (
        GATED,
        lambda: of_nnx(lambda rngs: nnx.OptimizedLSTMCell(6, 4, rngs=rngs)),
    ),
    "nnx gru": (GATED, lambda: of_nnx(lambda rngs: nnx.GRUCell(6, 4, rngs=rngs))),
    "equinox transpose": (
        TRANSPOSED,
        lambda: equinox(lambda key: eqx.nn.ConvTranspose2d(4, 3, 2, key=key)),
    ),
    "equinox lstm": (GATED, lambda: equinox(lambda key: eqx.nn.LSTMCell(6, 4, key=key))),
    "equinox gru": (GATED, lambda: equinox(lambda key: eqx.nn.GRUCell(6, 4, key=key))),
    "haiku transpose": (TRANSPOSED, lambda: haiku(lambda x: hk.Conv2DTranspose(3, 2)(x), IMAGE)),
    "haiku lstm": (GATED, lambda: haiku_cell(lambda: hk.LSTM(4), X)),
    "haiku conv lstm": (GATED, lambda: haiku_cell(lambda: hk.Conv2DLSTM((5, 5), 4, 3), IMAGE)),
    "keras transpose": (TRANSPOSED, lambda: keras(lambda kl: kl.Conv2DTranspose(3, 2), (5, 5, 4))),
    "keras lstm": (GATED, lambda: keras(lambda kl: kl.LSTM(4), (3, 6))),
    "keras gru": (GATED, lambda: keras(lambda kl: kl.GRU(4, reset_after=False), (3, 6))),
}


@pytest.mark.parametrize("name", UNMAPPED)
def test_kernels_that_pytorch_arranges_differently_are_refused(name):
    what, make = UNMAPPED[name]
    params, known = make()
    params = jax.tree.map(np.asarray, params)
    named = trees.to_named(params)
    assert known and all(layout.kind for layout in known.values())
    mapping = {leaf: leaf.replace("/", ".") for leaf in named}
    arrays = {name: named[leaf] for leaf, name in mapping.items()}
    calls = (
        lambda: exchange.to_state_dict(params, mapping=mapping, layouts=known),
        lambda: exchange.load_torch_state(arrays, mapping=mapping, layouts=known, like=params),
        lambda: exchange.load_torch_state(arrays, mapping=mapping, layouts=known),
    )
    for call in calls:
        with pytest.raises(exchange.ExchangeError, match=f"' is a kernel of {what}") as caught:
            call()
        text = str(caught.value)
        assert text.split("'")[1] in known and "\n" not in text and ". " not in text
    stated = {leaf: {"name": leaf, "layout": layout.axes} for leaf, layout in known.items()}
    mapping |= stated
    found = exchange.to_state_dict(params, mapping=mapping, layouts=known)
    again = exchange.load_torch_state(found, mapping=mapping, layouts=known, like=params)
    assert_same(again.params, params)


MAPPED = {
    "linen simple cell": lambda: linen_cell(nn.SimpleCell(4)),
    "linen conv": lambda: linen(nn.Conv(3, (2, 2)), IMAGE),
    "nnx simple cell": lambda: of_nnx(lambda rngs: nnx.SimpleCell(6, 4, rngs=rngs)),
    "nnx conv": lambda: of_nnx(lambda rngs: nnx.Conv(4, 3, (2, 2), rngs=rngs)),
    "equinox conv": lambda: equinox(lambda key: eqx.nn.Conv2d(4, 3, 2, key=key)),
    "haiku rnn": lambda: haiku_cell(lambda: hk.VanillaRNN(4), X),
    "haiku conv": lambda: haiku(lambda x: hk.Conv2D(3, 2)(x), IMAGE),
    "keras rnn": lambda: keras(lambda kl: kl.SimpleRNN(4), (3, 6)),
    "keras conv": lambda: keras(lambda kl: kl.Conv2D(3, 2), (5, 5, 4)),
}


@pytest.mark.parametrize("name", MAPPED)
def test_other_kernels_have_no_kind(name):
    _, known = MAPPED[name]()
    assert known and not any(layout.kind for layout in known.values())


def test_a_kind_stays_in_a_stack_and_is_checked():
    layout = layouts.DENSE.of_kind("gated")
    assert layout.with_stack(0).kind == "gated" and layout == layouts.DENSE
    assert repr(layout) == "Layout(inputs=(0,), outputs=(1,), kind='gated')"
    with pytest.raises(ValueError, match="`kind` is 'odd', but it must be one of"):
        layout.of_kind("odd")


W = np.ones((4, 4), np.float32)
EXPORTS = {
    "to_state_dict": lambda path, mask: exchange.to_state_dict({"w": W}, mask),
    "save_safetensors": lambda path, mask: exchange.save_safetensors(path, {"w": W}, mask),
    "save_safetensors to PyTorch": lambda path, mask: exchange.save_safetensors(
        path, {"w": W}, mask, mapping={"w": "t"}, masks=True
    ),
    "to_bcoo": lambda path, mask: exchange.to_bcoo({"w": W}, mask),
    "save_bcoo": lambda path, mask: exchange.save_bcoo(path, {"w": W}, mask),
    "save_nm": lambda path, mask: exchange.save_nm(path, {"w": W}, mask),
    "pack_nm": lambda path, mask: exchange.pack_nm(W, mask["w"], 2, 4),
    "save_ticket": lambda path, mask: lth.save_ticket(path, mask, {"w": W}, prunable={"w": True}),
}


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool"])
@pytest.mark.parametrize("export", EXPORTS)
def test_exports_take_masks_of_bool_only(export, dtype, tmp_path):
    path = tmp_path / "x.safetensors"
    mask = {"w": np.eye(4).astype(dtype)}
    if dtype == "bool":
        EXPORTS[export](path, mask)
        EXPORTS[export](tmp_path / "again.safetensors", jax.tree.map(jnp.asarray, mask))
        return
    with pytest.raises(TypeError, match=f"`mask`.* has dtype {dtype}.* bool") as caught:
        EXPORTS[export](path, mask)
    assert "\n" not in str(caught.value) and not path.exists()
    if export != "pack_nm":
        assert "'w'" in str(caught.value)


def random(params):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)


ATTENTION = {
    "linen": lambda: linen(nn.MultiHeadDotProductAttention(num_heads=2), jnp.ones((1, 3, 8))),
    "nnx": lambda: of_nnx(lambda rngs: nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)),
    "keras": lambda: keras_attention(),
}


def keras_attention():
    networks = pytest.importorskip("tests.keras_networks")
    words = networks.keras.Input((3, 8))
    out = networks.kl.MultiHeadAttention(2, 4, name="attention")(words, words)
    model = networks.keras.Model(words, out)
    params = {variable.path: np.asarray(variable.value) for variable in model.trainable_variables}
    return params, layouts.of_keras(model)


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("name", ATTENTION)
def test_biases_of_attention_heads_come_back(name, stated, tmp_path):
    params, known = ATTENTION[name]()
    params = random(params)
    mask = jax.tree.map(lambda p: p > -0.5, params)
    leaves, path = trees.to_named(params), tmp_path / "x.safetensors"
    mapping = {leaf: leaf.replace("/", ".") for leaf in leaves}
    if stated:  # the layouts of kernels in the mapping
        mapping |= {n: {"name": mapping[n], "layout": layout.axes} for n, layout in known.items()}
        known = None
    options = {"mapping": mapping, "layouts": known}
    exchange.save_safetensors(path, params, mask, masks=True, **options)
    arrays, _ = exchange.load_safetensors(path)
    (query,) = (leaf for leaf in leaves if leaf.endswith("query/bias"))
    bias = arrays[query.replace("/", ".") + "_orig"]
    assert bias.shape == (8,)
    np.testing.assert_array_equal(bias, np.where(leaves[query] > -0.5, leaves[query], 0).ravel())
    found = exchange.load_torch_state(path, like=params, **options)
    assert_same(
        found.params, jax.tree.map(lambda p, m: np.where(m, p, np.float32(0)), params, mask)
    )
    assert_same(found.mask, mask)


def test_biases_of_equinox_convolutions_come_back():
    params, known = MAPPED["equinox conv"]()
    mapping = {"weight": "w", "bias": "b"}
    found = exchange.to_state_dict(params, mapping=mapping, layouts=known)
    assert {name: array.shape for name, array in found.items()} == {"w": (3, 4, 2, 2), "b": (3,)}
    again = exchange.load_torch_state(found, mapping=mapping, layouts=known, like=params)
    assert_same(again.params, jax.tree.map(np.asarray, params))


def test_pytorch_projects_as_attention_does():
    params, known = ATTENTION["linen"]()
    params = random(params)["query"]
    known = {"kernel": known["query/kernel"]}
    mapping = {"kernel": "q.weight", "bias": "q.bias"}
    t = exchange.to_state_dict(params, mapping=mapping, layouts=known)
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    wanted = nn.DenseGeneral((2, 4)).apply({"params": params}, x)
    np.testing.assert_allclose((x @ t["q.weight"].T + t["q.bias"]).reshape(3, 2, 4), wanted, 1e-5)


def test_biases_of_stacked_layers_are_refused_as_stacks():
    params = {"kernel": np.ones((5, 6, 4), np.float32), "bias": np.ones((5, 4), np.float32)}
    known = {"kernel": layouts.DENSE.with_stack(0)}
    with pytest.raises(exchange.ExchangeError, match=r"'bias' stacks layers along its axes .0,."):
        exchange.to_state_dict(params, mapping={"kernel": "k", "bias": "b"}, layouts=known)
