"""Layers by the jaxpr: a Gram matrix gives the energy of the output of every kind of product."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lth_jax as lth
from lth_jax import trees
from lth_jax.models import networks
from lth_jax.models.adapters import from_linen
from lth_jax.models.convolution import conv_general_dilated
from lth_jax.reconstruct import find_layers, grams
from tests.thinning import thinned

IMAGES = ("NHWC", "HWIO", "NHWC")


def conv(strides=(1, 1), padding="SAME", own=False, **more):
    apply = conv_general_dilated if own else lax.conv_general_dilated
    return lambda w, x: apply(x, w, strides, padding, dimension_numbers=IMAGES, **more)


def scanned(w, x):
    return lax.scan(lambda h, w: (h @ w,) * 2, x, w)[1]


def looped(w, x):
    def body(i, state):
        h, seen = state[0] @ w[i], state[1]
        return h, seen.at[i].set(h)

    return lax.fori_loop(0, 3, body, (x, jnp.zeros((3, *x.shape))))[1]


def members(w, x):
    return jax.vmap(conv(own=True))(w, x)


IMAGE = (2, 3, 4, 2)
EACH = {
    "dense": (lambda w, x: x @ w, (3, 4), (5, 3)),
    "transposed": (lambda w, x: x @ w.T, (4, 3), (5, 3)),
    "left": (lambda w, x: w @ x, (4, 3), (3, 5)),
    "sequence": (lambda w, x: x @ w, (3, 4), (2, 5, 3)),
    "heads_in": (lambda w, x: jnp.einsum("btd,dhk->bthk", x, w), (6, 2, 3), (2, 5, 6)),
    "heads_out": (lambda w, x: jnp.einsum("bthk,hkd->btd", x, w), (2, 3, 6), (2, 5, 2, 3)),
    "experts": (lambda w, x: jnp.einsum("eci,eio->eco", x, w), (3, 2, 4), (3, 5, 2)),
    "experts_mixed": (lambda w, x: jnp.einsum("cei,oie->oec", x, w), (4, 2, 3), (5, 3, 2)),
    "ragged": (
        lambda w, x: lax.ragged_dot(x, w, jnp.array([2, 0, 3], jnp.int32)), (3, 2, 4), (5, 2)
    ),
    "reshaped": (lambda w, x: x @ w.reshape(3, 4), (12,), (5, 3)),
    "converted": (lambda w, x: x @ w.astype(jnp.bfloat16).astype(jnp.float32), (3, 4), (5, 3)),
    "flipped": (lambda w, x: x @ w[::-1], (3, 4), (5, 3)),
    "jitted": (lambda w, x: jax.jit(jax.checkpoint(lambda w: jnp.tanh(x @ w)))(w), (3, 4), (5, 3)),
    "conv": (conv(), (3, 3, 2, 4), (2, 5, 6, 2)),
    "conv_strided": (conv((2, 1), "VALID"), (3, 2, 2, 4), (2, 7, 6, 2)),
    "conv_cropped": (conv(padding=((-1, 2), (1, 0))), (3, 2, 2, 4), (2, 7, 6, 2)),
    "conv_dilated": (conv(rhs_dilation=(2, 1)), (3, 2, 2, 4), (2, 7, 6, 2)),
    "conv_upwards": (conv(padding=((1, 1), (0, 1)), lhs_dilation=(2, 2)), (3, 2, 2, 4), IMAGE),
    "conv_grouped": (conv(feature_group_count=2), (3, 3, 2, 6), (2, 5, 6, 4)),
    "conv_depthwise": (conv((2, 2), feature_group_count=4), (3, 3, 1, 8), (2, 5, 6, 4)),
    "own_conv": (conv((2, 1), own=True), (3, 3, 2, 4), (2, 5, 6, 2)),
    "own_grouped": (conv(own=True, feature_group_count=2), (3, 3, 2, 6), (2, 5, 6, 4)),
    "own_members": (members, (3, 3, 3, 2, 4), (3, 2, 5, 6, 2)),
}  # fmt: skip


def energy(weights, gram):
    return float(jnp.einsum("gio,gij,gjo->", weights, gram, weights))


def arrays(case, seed=0):
    f, *shapes = case
    w, x = (
        jax.random.normal(k, s)
        for k, s in zip(jax.random.split(jax.random.key(seed)), shapes, strict=True)
    )
    return f, w.astype(jnp.bfloat16).astype(jnp.float32), x


@pytest.mark.parametrize("name", thinned(EACH, 5))
@pytest.mark.slow
def test_the_gram_matrix_gives_the_energy_of_the_output(name):
    f, w, x = arrays(EACH[name])
    (found,) = grams(lambda p, x: f(p["w"], x), {"w": w}, [x])
    layer, gram, rows = found
    y = f(w, x) if name != "jitted" else x @ w
    assert layer.size == w.size and sorted(layer.places().ravel()) == list(range(w.size))
    assert layer.groups * rows * layer.outputs >= y.size
    np.testing.assert_allclose(energy(layer.read(w), gram), float(jnp.sum(y**2)), rtol=1e-5)
    np.testing.assert_array_equal(layer.write(jnp.zeros_like(w), layer.read(w)), w)


@pytest.mark.parametrize("f", [scanned, looped])
def test_each_layer_of_a_stack_is_a_layer_with_its_own_inputs(f):
    w, x = jax.random.normal(jax.random.key(0), (3, 4, 4)), jnp.eye(4)
    outputs = f(w, x)
    found = list(grams(lambda p, x: f(p["w"], x), {"w": w}, [x]))
    assert [layer.name for layer, _, _ in found] == ["w[0]", "w[1]", "w[2]"]
    for layer, gram, _ in found:
        index = layer.first // 16
        h = x if index == 0 else outputs[index - 1]
        np.testing.assert_allclose(gram[0], h.T @ h, rtol=1e-5)
        np.testing.assert_array_equal(layer.read(w)[0], w[index])


def test_layers_are_numbered_by_place_and_come_in_order_of_use():
    def f(p, x):
        return lax.scan(lambda h, w: (h @ w, None), x, p["w"], reverse=True)[0]

    found = find_layers(f, {"w": jnp.ones((3, 4, 4))}, jnp.ones((2, 4)))
    assert [layer.name for layer in found] == ["w[2]", "w[1]", "w[0]"]


def test_results_of_a_reversed_scan_are_in_their_places():
    def outputs(w, x):
        return lax.scan(lambda h, w: (h @ w,) * 2, x, w, reverse=True)[1]

    def f(p, x):
        return (outputs(p["w"], x) * jnp.arange(3)[:, None, None]) @ p["v"]

    w, x = jax.random.normal(jax.random.key(0), (3, 4, 4)), jnp.eye(4)
    *_, (layer, gram, _) = grams(f, {"w": w, "v": jnp.eye(4)}, [x])
    rows = (outputs(w, x) * jnp.arange(3)[:, None, None]).reshape(-1, 4)
    assert layer.name == "v"
    np.testing.assert_allclose(gram[0], rows.T @ rows, rtol=1e-4, atol=1e-4)


def test_one_projection_split_in_three_is_one_layer_and_its_parts_are_three():
    def whole(p, x):
        q, k, v = jnp.split(x @ p["w"], 3, axis=-1)
        return q + k + v

    def parts(p, x):
        return sum(x @ part for part in jnp.split(p["w"], 3, axis=-1))

    params, x = {"w": jnp.ones((4, 6))}, jnp.ones((2, 4))
    assert [x.outputs for x in find_layers(whole, params, x)] == [6]
    assert [(x.name, x.outputs) for x in find_layers(parts, params, x)] == [
        ("w[0]", 2),
        ("w[1]", 2),
        ("w[2]", 2),
    ]


def test_tied_layers_collect_the_inputs_of_all_their_products():
    def f(p, x):
        h = jnp.tanh(x @ p["w"])
        return jnp.tanh(h @ p["w"]) @ p["v"]

    w, v = jax.random.normal(jax.random.key(0), (2, 4, 4))
    x = jax.random.normal(jax.random.key(1), (8, 4))
    (tied, gram, rows), (last, after, _) = grams(f, {"w": w, "v": v}, [x[:3], x[3:]])
    h = jnp.tanh(x @ w)
    assert (tied.sites, rows, last.name) == (2, 16, "v")
    np.testing.assert_allclose(gram[0], x.T @ x + h.T @ h, rtol=1e-5)
    y = jnp.tanh(h @ w)
    np.testing.assert_allclose(after[0], y.T @ y, rtol=1e-5)


def test_a_recurrent_cell_is_one_layer_with_a_site_for_each_step():
    def f(p, x):
        return lax.scan(lambda h, x: (jnp.tanh(h @ p["w"] + x @ p["u"]), h), x[0], x)[1]

    params = {"w": jnp.eye(3), "u": jnp.eye(3)}
    short, long = jnp.ones((4, 2, 3)), jnp.ones((6, 2, 3))  # batches of different lengths
    found = {layer.name: (layer.sites, rows) for layer, _, rows in grams(f, params, [short, long])}
    assert found == {"w": (4, 20), "u": (4, 20)}


NOT = {
    "turned": (lambda w, x: x @ w @ w.T, "along different axes"),
    "overlapping": (lambda w, x: x[:, :2] @ w[:2] + x[:, :2] @ w[1:], "along different axes"),
    "repeated": (lambda w, x: x @ jnp.broadcast_to(w[:1], (3, 3)), "some of its weights twice"),
    "masked": (lambda w, x: x @ (w * 2), "not read by a matrix product; read by mul"),
    "unused": (lambda w, x: x, "not read by a matrix product"),
    "both": (lambda w, x: x @ (w @ w) * 1, "not read by a matrix product; read by dot_general"),
    "chosen": (
        lambda w, x: x + w[x[:, 0].astype(int)],
        "not read by a matrix product; read by gather",
    ),
    "branched": (lambda w, x: lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x), "read by cond"),
}


@pytest.mark.parametrize("f, reason", NOT.values(), ids=NOT)
def test_what_is_no_layer_is_named_with_the_reason(f, reason):
    found = find_layers(lambda p, x: f(p["w"], x), {"w": jnp.ones((3, 3))}, jnp.ones((2, 3)))
    assert not found.layers and reason in found.others["w"]


def test_an_embedding_that_is_also_looked_up_names_its_other_use():
    def f(p, tokens):
        return p["e"][tokens] @ p["e"].T

    found = find_layers(f, {"e": jnp.ones((5, 3))}, jnp.array([[0, 4]]))
    assert [x.name for x in found] == ["e"] and found.also == {"e": ("gather",)}


def test_shapes_are_enough():
    shape = lambda *s: jax.ShapeDtypeStruct(s, "float32")  # noqa: E731
    found = find_layers(lambda p, x: x @ p["w"], {"w": shape(3, 4)}, shape(2, 3))
    assert repr(found.layers) == "(Layer(w, dot_general, 3×4),)"


SEQUENCE, VECTOR = jnp.ones((2, 6, 3)), jnp.ones((2, 7))
EXAMPLES = {
    **dict.fromkeys(("mlp", "residual_mlp", "residual_mlp_glorot"), VECTOR),
    **dict.fromkeys(("rnn", "gru", "lstm", "transformer_encoder", "transformer_decoder"), SEQUENCE),
}
FAMILIES = list(networks._FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_kernel_of_every_network_is_a_layer(name):
    x = EXAMPLES.get(name, jnp.ones((2, 8, 8, 3)))
    options = {"stages": ((4,), (4,))} if name == "vgg" else {}
    model = from_linen(lth.models.NETWORKS[name](**options))
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    state = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), state)
    found = find_layers(lambda p, x: model.apply(p, state, x, train=False)[0], params, x)
    leaves = trees.names(params)
    kernels = {n for n in leaves if n.endswith("kernel")}
    assert {leaves[layer.leaf] for layer in found} == kernels and not found.also


@pytest.mark.slow
def test_modules_and_attention_have_their_kernels_as_layers():
    module, fixed = eqx.partition(eqx.nn.MLP(3, 4, 8, 2, key=jax.random.key(0)), eqx.is_array)
    found = find_layers(lambda p, x: jax.vmap(eqx.combine(p, fixed))(x), module, jnp.ones((2, 3)))
    assert [(x.inputs, x.outputs) for x in found] == [(3, 8), (8, 8), (8, 4)]

    attention = nn.MultiHeadDotProductAttention(2, qkv_features=8)
    params = attention.init(jax.random.key(0), jnp.ones((2, 5, 6)))
    found = find_layers(attention.apply, params, jnp.ones((2, 5, 6)))
    assert {x.name.split("/")[1]: (x.inputs, x.outputs) for x in found} == {
        "query": (6, 8),
        "key": (6, 8),
        "value": (6, 8),
        "out": (8, 6),
    }


def test_batches_are_trees_of_any_arrays_keys_included():
    def f(p, batch):
        noise = jax.random.normal(batch["key"], batch["x"].shape)
        return (batch["x"] * batch["scale"] + noise) @ p["w"]

    x, key = np.ones((4, 3), np.float32), jax.random.key(0)
    (found,) = grams(f, {"w": np.ones((3, 2), np.float32)}, [{"x": x, "scale": 2.0, "key": key}])
    rows = 2 * x + jax.random.normal(key, x.shape)
    np.testing.assert_allclose(found[1][0], rows.T @ rows, rtol=1e-5)


def test_batches_that_are_split_over_devices_give_the_same_gram_matrix():
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    x, params = jax.random.normal(jax.random.key(0), (16, 3)), {"w": jnp.eye(3), "v": jnp.eye(3)}
    f = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]  # noqa: E731
    here, there = (list(grams(f, params, [b])) for b in (x, jax.device_put(x, rows)))
    for (_, a, _), (_, b, _) in zip(here, there, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
