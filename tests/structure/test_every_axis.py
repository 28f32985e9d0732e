"""Every index of a parameter is in a group, or has a reason why it cannot be removed."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from lth_jax import structure as st

awkward = importlib.import_module("tests.structure.test_awkward_nets")
zoo = importlib.import_module("tests.structure.test_zoo")
arrays, conv, data = awkward.arrays, awkward.conv, awkward.data


def check_answers(found):
    """Every index is in a group, or its axis has a reason, and only then."""
    for leaf, shape in found.shapes.items():
        for axis, n in enumerate(shape):
            grouped = np.zeros(n, bool)
            for slot in (s for g in found.groups for s in g.slots):
                if (slot.leaf, slot.axis) == (leaf, axis):
                    grouped[slot.indices.ravel()] = True
            reasons = found.pinned[leaf][axis]
            assert bool(reasons) == (not n or not grouped.all()), (leaf, axis, reasons)
            assert len(set(reasons)) == len(reasons) and all(reasons)


NETS = {}


def net(groups, params, *args, reasons=None, **options):
    """Registers a network, the sizes of its groups and the reasons of some `(leaf, axis)`."""

    def add(f):
        NETS[f.__name__] = (f, groups, params, args, reasons or {}, options)
        return f

    return add


LONE = "its indices can only be removed together, which would empty the leaf"
SAME = "two factors of a merged axis are the same units"


@net([], arrays(stem=(1, 1, 3, 12), g1=(1, 1, 4, 12), g2=(1, 1, 4, 12), out=(12, 5)),
     data(2, 2, 2, 3), reasons={
         ("out", 0): "no group, and no channel of every group, is removable from "
                     "`conv_general_dilated`"
     })  # fmt: skip
def shuffle_added_to_itself(p, x):
    x = jax.nn.relu(conv(x, p["stem"]))
    y = conv(x, p["g1"], groups=3)
    y = y.reshape(*y.shape[:3], 3, 4).swapaxes(3, 4).reshape(y.shape)
    return (x + conv(y, p["g2"], groups=3)).mean((1, 2)) @ p["out"]


@net([2], arrays(stem=(1, 1, 3, 8), g1=(1, 1, 4, 8), out=(8, 5)), data(2, 2, 2, 3))
def shuffle_before_a_dense_layer(p, x):
    y = conv(jax.nn.relu(conv(x, p["stem"])), p["g1"], groups=2)
    y = y.reshape(*y.shape[:3], 2, 4).swapaxes(3, 4).reshape(y.shape)
    return y.mean((1, 2)) @ p["out"]


@net([], arrays(w=(4, 8), v=(8, 2)), data(2, 4), reasons={("w", 1): LONE, ("v", 0): LONE})
def roll_added_to_itself(p, x):
    h = x @ p["w"]
    return (h + jnp.roll(h, 1, -1)) @ p["v"]


@net([4], arrays(w=(4, 8), v=(8, 2)), data(2, 4))
def roll_by_half_added_to_itself(p, x):
    h = x @ p["w"]
    return (h + jnp.roll(h, 4, -1)) @ p["v"]


@net([3], arrays(w=(4, 12), v=(12, 2)), data(2, 4),
     reasons={("w", 0): "an axis of the argument '0'"})  # fmt: skip
def heads_mixed_by_a_roll(p, x):
    """Heads can only go all together, so features of all heads are the units."""
    h = (x @ p["w"]).reshape(-1, 4, 3)
    return jnp.tanh(h + jnp.roll(h, 1, axis=1)).reshape(-1, 12) @ p["v"]


@net([], arrays(a=(8, 5), o=(25, 3)), data(2, 4, 8), reasons={("a", 1): SAME, ("o", 0): SAME})
def bilinear_pooling(p, x):
    h = x @ p["a"]
    return jnp.einsum("bti,btj->bij", h, h).reshape(len(h), -1) @ p["o"]


@net([3], arrays(a=(8, 3), b=(8, 4), o=(12, 3)), data(2, 4, 8),
     reasons={("b", 1): "another factor of a merged axis is removable (see `prefer`)"})  # fmt: skip
def bilinear_pooling_of_two(p, x):
    return jnp.einsum("bti,btj->bij", x @ p["a"], x @ p["b"]).reshape(len(x), -1) @ p["o"]


@net([], arrays(a=(8, 3), b=(8, 4)), data(2, 4, 8), reasons={
    ("a", 1): "no factor of a merged axis can lose indices",
    ("b", 1): "no factor of a merged axis can lose indices"})  # fmt: skip
def outer_products_as_results(p, x):
    return jnp.einsum("bti,btj->bij", x @ p["a"], x @ p["b"]).reshape(len(x), -1)


@net([6], arrays(a=(3, 6), b=(24, 5)), data(16, 3))
def patch_merger(p, x):
    return jnp.tanh(x @ p["a"]).reshape(4, 24) @ p["b"]


@net([6], arrays(a=(3, 6), b=(24, 5)), data(4, 3))
def reshaped_in_another_order(p, x):
    h = lax.reshape(jnp.tanh(x @ p["a"]), (24,), dimensions=(1, 0))
    return h @ p["b"]


@net([2], arrays(a=(3, 4), b=(6, 5)), data(6, 3))
def patch_merger_without_common_factors(p, x):
    return jnp.tanh(x @ p["a"]).reshape(4, 6) @ p["b"]


@net([6, 5], arrays(a=(3, 6), n=(24,), b=(24, 5), c=(5, 2)), data(2, 4, 4, 3))
def swin_merger(p, x):
    h = jnp.tanh(x @ p["a"]).reshape(2, 2, 2, 2, 2, 6)
    h = h.transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 24) * p["n"]
    return jnp.tanh(h @ p["b"]) @ p["c"]


@net([6], arrays(a=(3, 24), b=(6, 5)), data(4, 3))
def patch_expander(p, x):
    return jnp.tanh(jnp.tanh(x @ p["a"]).reshape(16, 6) @ p["b"]).reshape(4, 20)


@net([4], arrays(q=(6, 16), k=(6, 16), v=(6, 16), o=(16, 3)), data(2, 3, 6))
def complex_rotations(p, x):
    t = x.shape[1]

    def rotated(h):
        z = h.reshape(*h.shape[:-1], -1, 2)
        z = lax.complex(z[..., 0], z[..., 1])
        z = z * jnp.exp(1j * jnp.arange(t)[:, None] * jnp.ones(2))[None, :, None]
        return jnp.stack([z.real, z.imag], -1).reshape(h.shape)

    q, k, v = ((x @ p[n]).reshape(*x.shape[:2], 4, 4) for n in "qkv")
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", rotated(q), rotated(k)))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(2, t, 16) @ p["o"]


@net([10], arrays(i=(8, 10), o=(10, 3)), data(2, 6, 8))
def transform_along_time(p, x):
    return jnp.fft.irfft(jnp.fft.rfft(x @ p["i"], axis=1) * 1j, n=6, axis=1) @ p["o"]


@net([10, 12], arrays(i=(8, 10), r=(10, 4), w1=(4, 10, 12), w2=(4, 12, 10), o=(10, 3)),
     data(6, 8), reasons={
         ("r", 1): "`argmax` returns indices of it",
         ("w1", 0): "`ragged_dot_general` counts the rows of each group along it",
     })  # fmt: skip
def routed_experts(p, x):
    h = x @ p["i"]
    chosen = jnp.argmax(h @ p["r"], -1)
    order, sizes = jnp.argsort(chosen), jnp.bincount(chosen, length=4).astype(jnp.int32)
    y = lax.ragged_dot(jax.nn.gelu(lax.ragged_dot(h[order], p["w1"], sizes)), p["w2"], sizes)
    return (h + jnp.zeros_like(h).at[order].set(y)) @ p["o"]


@net([6], arrays(a=(3, 6), s=(6,), b=(6, 2)), data(2, 4, 3))
def taken_along_an_axis(p, x):
    order = jnp.argsort(x[..., :1], axis=1)
    h = x @ p["a"]
    h = jnp.take_along_axis(h, jnp.broadcast_to(order, h.shape), axis=1)
    write = jax.vmap(lambda h, i: h.at[jnp.arange(2), i].set(1.0).at[0, i].multiply(2), (2, 1), 2)
    h = h * write(jnp.zeros_like(h), jnp.broadcast_to(order[:, 0], (2, 6)))
    return awkward.norm(h, p["s"], 0.0) @ p["b"]


@net([8], arrays(w=(4, 8), v=(8, 2)), data(2, 4))
def captured_without_entries(p, x):
    return jnp.concatenate([x, np.zeros((2, 0), "float32")], -1) @ p["w"] @ p["v"]


@net([4], arrays(one=(3, 1), w=(1, 4), none=(0, 4), v=(4, 2), unused=(2, 3)), data(2, 3), reasons={
    ("one", 1): "an axis of length 1; removing it would empty the leaf",
    ("none", 0): "an axis without indices",
    ("unused", 1): "the function does not read this leaf"})  # fmt: skip
def narrow_and_empty_axes(p, x):
    return (jnp.tanh(x @ p["one"]) @ p["w"] + p["none"].sum(0)) @ p["v"]


UNLIKE = "no two indices are units of the same kind, and each kind keeps at least one"


@net([3], arrays(w=(3, 4), v=(4, 2), more=(1, 2)), data(2, 3), reasons={("w", 1): UNLIKE})
def one_index_unlike_the_others(p, x):
    h = jnp.tanh(x @ p["w"])
    return h @ p["v"] + h[:, :1] @ p["more"]


@pytest.mark.parametrize("name", NETS)
def test_new_patterns_have_their_groups_and_reasons(name, compare_units, random_units):
    apply, sizes, params, args, reasons, options = NETS[name]
    found = st.find_groups(apply, params, *args, **options)
    assert sorted(g.units for g in found.groups) == sorted(sizes)
    assert found.unknown == () and all(g.exact for g in found.groups)
    check_answers(found)
    for (leaf, axis), reason in reasons.items():
        assert reason in found.pinned[leaf][axis]
    if sizes:
        compare_units(found, apply, args, random_units(found), params)


@pytest.mark.parametrize("name", awkward.NETS)
def test_every_axis_of_the_awkward_networks(name):
    apply, _, args, options = awkward.NETS[name]
    check_answers(st.find_groups(apply, awkward.PARAMS[name], *args, **options))


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_axis_of_every_family(name):
    model, apply, x = zoo.network(name)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    check_answers(st.find_groups(apply, {"params": params, "state": state}, x))


class Normalised(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Linear(4, 8, rngs=rngs)
        self.n = nnx.BatchNorm(8, rngs=rngs)
        self.b = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.b(jnp.tanh(self.n(self.a(x))))


def test_captured_statistics_in_training_mode(compare_units):
    graph, params, rest = nnx.split(Normalised(nnx.Rngs(0)), nnx.Param, ...)
    apply = lambda p, x: nnx.merge(graph, p, rest, copy=True)(x)  # noqa: E731
    params, x = nnx.as_pure(params), data(3, 4)
    found = st.find_groups(apply, params, x)
    check_answers(found)
    (group,) = found.groups
    assert group.units == 8
    compare_units(found, apply, (x,), {group.name: np.arange(8) % 2 == 0}, params)
