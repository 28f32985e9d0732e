"""Hand-written networks with the patterns that break tools of this kind."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lth_jax import structure as st
from tests.structure.patterns.registry import data
from tests.structure.patterns.registry import weights as arrays


def conv(x, w, stride=1, groups=1, **options):
    return lax.conv_general_dilated(
        x,
        w,
        (stride,) * (x.ndim - 2),
        "SAME",
        dimension_numbers=lax.conv_dimension_numbers(
            x.shape, w.shape, {3: ("NWC", "WIO", "NWC"), 4: ("NHWC", "HWIO", "NHWC"),
                               5: ("NDHWC", "DHWIO", "NDHWC")}[x.ndim]
        ),
        feature_group_count=groups,
        **options,
    )  # fmt: skip


def norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    var = (x * x).mean(-1, keepdims=True) - mean * mean
    return (x - mean) * (lax.rsqrt(var + 1e-5) * scale) + bias


NETS: dict[str, Any] = {}
PARAMS: dict[str, Any] = {}


def net(sizes, args, **options):
    """Registers a network with the sizes of the groups it must have."""

    def add(function):
        NETS[function.__name__] = (function, sizes, args, options)
        return function

    return add


@net([3, 5], [data(2, 4)])
def concat_of_branches(p, x):
    both = jnp.concatenate([jax.nn.relu(x @ p["a"]), jnp.tanh(x @ p["b"])], axis=-1)
    return both @ p["out"]


PARAMS["concat_of_branches"] = arrays(a=(4, 3), b=(4, 5), out=(8, 2))


@net([6], [data(2, 4)])
def gated_by_split(p, x):
    gate, value = jnp.split(x @ p["w"] + p["b"], 2, axis=-1)
    return (jax.nn.silu(gate) * value) @ p["out"]


PARAMS["gated_by_split"] = arrays(w=(4, 12), b=(12,), out=(6, 2))


@net([4, 3], [data(2, 4, 4, 3)], prefer=st.minor)
def channel_shuffle(p, x):
    h = jax.nn.relu(conv(x, p["stem"]))
    h = conv(h, p["grouped"], groups=2)
    n, a, b, c = h.shape
    h = h.reshape(n, a, b, 2, c // 2).swapaxes(-1, -2).reshape(n, a, b, c)
    return conv(jax.nn.relu(h), p["out"])


PARAMS["channel_shuffle"] = arrays(stem=(3, 3, 3, 8), grouped=(3, 3, 4, 6), out=(1, 1, 6, 2))


def attention(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


@net([4], [data(2, 3, 5)])
def fused_qkv_heads(p, x):
    n, t, _ = x.shape
    qkv = (x @ p["qkv"]).reshape(n, t, 3, 4, 3)
    out = attention(*(qkv[:, :, i] for i in range(3)))
    return out.reshape(n, t, 12) @ p["out"]


PARAMS["fused_qkv_heads"] = arrays(qkv=(5, 36), out=(12, 5))


@net([7, 4, 3], [data(2, 5)])
def residual_tower(p, x):
    h = x @ p["embed"]
    for k in range(2):
        inner = jax.nn.relu(norm(h, p[f"scale{k}"], p[f"bias{k}"]) @ p[f"up{k}"])
        h = h + inner @ p[f"down{k}"]
    return h @ p["out"]


PARAMS["residual_tower"] = arrays(
    embed=(5, 7), scale0=(7,), bias0=(7,), up0=(7, 4), down0=(4, 7), scale1=(7,), bias1=(7,),
    up1=(7, 3), down1=(3, 7), out=(7, 2),
)  # fmt: skip


@net([6, 3], [data(2, 4, 4, 3)])
def squeeze_excite(p, x):
    h = jax.nn.relu(conv(x, p["stem"]))
    gate = jax.nn.sigmoid(jax.nn.relu(h.mean((1, 2)) @ p["squeeze"]) @ p["excite"])
    return (h * gate[:, None, None, :]).mean((1, 2)) @ p["out"]


PARAMS["squeeze_excite"] = arrays(stem=(3, 3, 3, 6), squeeze=(6, 3), excite=(3, 6), out=(6, 2))


@net([5, 4], [data(2, 6, 6, 2)])
def depthwise_separable(p, x):
    h = jax.nn.relu(conv(x, p["stem"]))
    h = jax.nn.relu(conv(h, p["depth"], stride=2, groups=5))
    h = jax.nn.relu(conv(h, p["point"]))
    return h.reshape(len(h), -1) @ p["out"]


PARAMS["depthwise_separable"] = arrays(
    stem=(3, 3, 2, 5), depth=(3, 3, 1, 10), point=(1, 1, 10, 4), out=(36, 2)
)


@net([3], [data(2, 4, 4, 2)])
def grouped_convolution(p, x):
    h = jax.nn.relu(conv(x, p["stem"]))
    return conv(jax.nn.relu(conv(h, p["grouped"], groups=3)), p["out"])


PARAMS["grouped_convolution"] = arrays(stem=(3, 3, 2, 6), grouped=(3, 3, 2, 9), out=(1, 1, 9, 2))


@net([2, 3], [data(2, 4, 4, 2)], prefer=st.minor)
def same_channels_of_every_group(p, x):
    return grouped_convolution(p, x)


PARAMS["same_channels_of_every_group"] = PARAMS["grouped_convolution"]


@net([6], [data(2, 4)])
def weights_shared_between_layers(p, x):
    h = jnp.tanh(x @ p["in"])
    for _ in range(3):
        h = jnp.tanh(h @ p["w"] + p["b"])
    return h @ p["out"]


PARAMS["weights_shared_between_layers"] = arrays(**{"in": (4, 6)}, w=(6, 6), b=(6,), out=(6, 2))


@net([6, 5], [jnp.array([[1, 3, 0], [2, 2, 6]])])
def tied_embeddings(p, tokens):
    h = p["table"][tokens]
    h = h + jax.nn.gelu(h @ p["up"]) @ p["down"]
    return h @ p["table"].T


PARAMS["tied_embeddings"] = arrays(table=(7, 6), up=(6, 5), down=(5, 6))


@net([6, 4], [data(2, 3)])
def scan_over_layers(p, x):
    def layer(h, w):
        return h + jax.nn.relu(h @ w["up"]) @ w["down"], jnp.sum(h, -1)

    h, sums = lax.scan(layer, x @ p["in"], {"up": p["up"], "down": p["down"]})
    return h @ p["out"], sums


PARAMS["scan_over_layers"] = arrays(**{"in": (3, 6)}, up=(3, 6, 4), down=(3, 4, 6), out=(6, 2))


@net([5], [data(2, 4, 3)])
def lstm(p, x):
    def step(carry, now):
        c, h = carry
        i, f, g, o = jnp.split(now @ p["x"] + h @ p["h"] + p["b"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    zeros = jnp.zeros((len(x), 5))
    (_, h), hs = lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))
    return h @ p["out"], hs.mean(0) @ p["out"]


PARAMS["lstm"] = arrays(x=(3, 20), h=(5, 20), b=(20,), out=(5, 2))


@net([4, 5, 3], [data(2, 3), data(2, 4, seed=5)])
def two_inputs(p, x, y):
    h = jax.nn.relu(x @ p["x"])
    k = jax.nn.relu(y @ p["y"])
    mixed = jnp.einsum("bi,bj,ijk->bk", h, k, p["mix"])
    return jnp.tanh(mixed) @ p["out"]


PARAMS["two_inputs"] = arrays(x=(3, 4), y=(4, 5), mix=(4, 5, 3), out=(3, 2))


@net([6, 3], [data(2, 4)])
def two_outputs(p, x):
    h = jax.nn.elu(x @ p["w"])
    return {"a": h @ p["a"], "b": jax.nn.softplus(h @ p["b"]) @ p["c"]}


PARAMS["two_outputs"] = arrays(w=(4, 6), a=(6, 2), b=(6, 3), c=(3, 1))


@net([4, 6, 5], [data(2, 8, 8, 2)])
def u_net(p, x):
    skip = jax.nn.relu(conv(x, p["down"]))
    low = lax.reduce_window(skip, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    low = jax.nn.relu(conv(low, p["low"]))
    up = lax.conv_transpose(
        low, p["up"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return conv(jnp.concatenate([skip, jax.nn.relu(up)], -1), p["out"])


PARAMS["u_net"] = arrays(down=(3, 3, 2, 4), low=(3, 3, 4, 6), up=(3, 3, 6, 5), out=(3, 3, 9, 1))


@net([4, 3], [data(2, 5)])
def rematerialised(p, x):
    @jax.checkpoint
    def block(h, w):
        return jax.nn.relu(h @ w)

    return block(block(x, p["a"]), p["b"]) @ p["out"]


PARAMS["rematerialised"] = arrays(a=(5, 4), b=(4, 3), out=(3, 2))


@net([5], [data(2, 3)])
def branches(p, x):
    h = lax.cond(
        x.sum() > 0,
        lambda h: jax.nn.relu(h @ p["a"]),
        lambda h: jnp.tanh(h @ p["b"]) * 2,
        x,
    )
    return h @ p["out"]


PARAMS["branches"] = arrays(a=(3, 5), b=(3, 5), out=(5, 2))


@net([2, 3, 4], [data(2, 4, 5)])
def grouped_queries(p, x):
    q = jnp.einsum("btc,chd->bthd", x, p["q"])
    k, v = (jnp.repeat(jnp.einsum("btc,chd->bthd", x, p[n]), 2, axis=2) for n in "kv")
    rotated = jnp.concatenate([-q[..., 2:], q[..., :2]], -1)
    angle = np.outer(np.arange(4), [1.0, 0.1]).repeat(2, 1).astype("float32")[:, None, :]
    q = q * jnp.cos(angle) + rotated * jnp.sin(angle)
    return jnp.einsum("bthd,hdc->btc", attention(q, k, v), p["out"])


PARAMS["grouped_queries"] = arrays(q=(5, 6, 4), k=(5, 3, 4), v=(5, 3, 4), out=(6, 4, 5))


@net([4, 4], [data(2, 4, 4, 2)])
def shortcut_padded_with_zeros(p, x):
    h = jax.nn.relu(conv(x, p["stem"]))
    short = jnp.pad(h[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (2, 2)))
    h = jax.nn.relu(short + conv(h, p["wide"], stride=2))
    return h.mean((1, 2)) @ p["out"]


PARAMS["shortcut_padded_with_zeros"] = arrays(stem=(3, 3, 2, 4), wide=(3, 3, 4, 8), out=(8, 2))


@net([6, 6], [data(2, 3)])
def fixed_permutation(p, x):
    h = jnp.roll(jax.nn.relu(x @ p["w"])[:, jnp.array([5, 3, 1, 0, 2, 4])], 2, axis=1)
    return jax.nn.relu(h @ p["v"])[:, ::-1] @ p["out"]


PARAMS["fixed_permutation"] = arrays(w=(3, 6), v=(6, 6), out=(6, 2))


@net([4, 3], [data(2, 6, 3)])
def sums_along_time(p, x):
    h = jnp.cumsum(jax.nn.relu(x @ p["w"]), axis=1)
    h = jnp.sort(h, axis=1)[:, 2:]
    h = jax.nn.relu(h @ p["v"])
    h = h.at[:, 0].set(0.0)
    h = lax.dynamic_update_slice(h, h[:, :1] * 2, (0, 1, 0))
    return h.max(1) @ p["out"]


# Positive, or the largest of sums, sorted upwards, would meet no unit that is alive.
PARAMS["sums_along_time"] = jax.tree.map(jnp.abs, arrays(w=(3, 4), v=(4, 3), out=(3, 2)))


@net([4, 3], [data(5, 3), jnp.array([0, 0, 1, 2, 4]), jnp.array([1, 2, 3, 4, 0])])
def message_passing(p, nodes, sender, receiver):
    h = jax.nn.relu(nodes @ p["w"])
    h = h + jax.ops.segment_sum(jax.nn.relu(h[sender] @ p["m"]) @ p["n"], receiver, 5)
    return h @ p["out"]


PARAMS["message_passing"] = arrays(w=(3, 4), m=(4, 3), n=(3, 4), out=(4, 2))


@net([4, 3], [data(2, 8, 3)])
def one_dimension(p, x):
    h = jax.nn.relu(conv(x, p["a"], rhs_dilation=(2,)))
    return conv(jax.nn.relu(conv(h, p["b"], stride=2)), p["out"])


PARAMS["one_dimension"] = arrays(a=(3, 3, 4), b=(3, 4, 3), out=(1, 3, 2))


@net([4], [data(2, 3, 4, 4, 2)])
def three_dimensions(p, x):
    h = jax.nn.relu(conv(x, p["a"]))
    h = lax.reduce_window(h, 0.0, lax.add, (1, 2, 2, 2, 1), (1, 1, 2, 2, 1), "VALID")
    return conv(h, p["out"])


PARAMS["three_dimensions"] = arrays(a=(2, 2, 2, 2, 4), out=(1, 1, 1, 4, 2))


@net([6], [data(2, 3), jax.random.key(0)])
def dropout(p, x, key):
    h = jax.nn.relu(x @ p["w"])
    kept = jax.random.bernoulli(key, 0.5, h.shape)
    return jnp.where(kept, h / 0.5, 0) @ p["out"]


PARAMS["dropout"] = arrays(w=(3, 6), out=(6, 2))


@net([4, 2], [data(2, 3)])
def slopes_for_each_head(p, x):
    h = jnp.einsum("bc,chd->bhd", x, p["w"]) * jnp.array([1.0, 0.5, 0.25, 0.125])[:, None]
    h = h * (1 + jnp.arange(4.0))[:, None]
    return jnp.einsum("bhd,hdc->bc", jnp.tanh(h), p["out"])


PARAMS["slopes_for_each_head"] = arrays(w=(3, 4, 2), out=(4, 2, 2))


@net([4, 3], [data(2, 3)])
def normalised_by_groups(p, x):
    h = jax.nn.relu(x @ p["a"] + p["b"])
    parts = h.reshape(2, 4, 2)
    parts = parts * lax.rsqrt((parts * parts).mean(-1, keepdims=True) + 1e-3)
    return jax.nn.relu(parts.reshape(2, 8) @ p["v"]) @ p["out"]


PARAMS["normalised_by_groups"] = arrays(a=(3, 8), b=(8,), v=(8, 3), out=(3, 2))


@pytest.mark.parametrize("name", NETS)
def test_removed_is_masked(name, check):
    """In outputs and gradients, and after twenty steps of training."""
    apply, sizes, args, options = NETS[name]
    found = check(apply, PARAMS[name], *args, **options)
    assert sorted(g.units for g in found.groups) == sorted(sizes)
    assert found.unknown == ()
    assert all(group.exact for group in found.groups)


def test_removed_is_masked_in_a_while_loop():
    """In tangents: reverse-mode differentiation, and so training, stops at a `while_loop`."""

    def apply(p, x):
        def body(state):
            k, h = state
            return k + 1, jnp.tanh(h @ p["w"])

        return lax.while_loop(lambda s: s[0] < 3, body, (0, x @ p["in"]))[1] @ p["out"]

    params, x = arrays(**{"in": (3, 4)}, w=(4, 4), out=(4, 2)), data(2, 3)
    found = st.find_groups(apply, params, x)
    units = {found.groups[0].name: np.array([True, False, True, False])}
    small, compact = st.compact(found, params, units)
    mask = st.expand(found, units)
    masked = jax.tree.map(jnp.multiply, mask, params)
    tangents = jax.tree.map(jnp.sin, masked), st.take(found, jax.tree.map(jnp.sin, masked), units)
    wide = jax.jvp(lambda p: apply(p, x), (masked,), (tangents[0],))
    narrow = jax.jvp(lambda p: compact(p, x), (small,), (tangents[1],))
    np.testing.assert_allclose(wide, narrow, atol=1e-6)
