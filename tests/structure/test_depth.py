"""Depth: layers of a scan, and residual blocks that code has written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive

from lth_jax import structure as st
from tests.structure.patterns.registry import conv, data, rms_norm, weights
from tests.thinning import thinned

LAYERS = weights(scale=(3, 4), up=(3, 4, 5), bias=(3, 5), down=(3, 5, 4))
X = data(2, 4)


def branch(h, w):
    return jnp.tanh(rms_norm(h, w["scale"]) @ w["up"] + w["bias"]) @ w["down"]


def stack(layer, start=lambda x: x, end=lambda h: h):
    return lambda p, x: end(lax.scan(layer, start(x), p)[0])


def in_low_precision(h, w):
    wide = h.astype("float32")
    return (wide + branch(wide, w)).astype(h.dtype), None


def subtracted(h, w):
    return h - jax.checkpoint(branch)(h, w), None


def two_carries(state, w):
    h, other = state
    return (h + branch(other, w), other + branch(h, w)), None


IDENTITIES = {
    "residual": stack(lambda h, w: (h + branch(h, w), None)),
    "rematerialised": stack(jax.checkpoint(lambda h, w: (branch(h, w) + h, None))),
    "low_precision": stack(in_low_precision, lambda x: x.astype("bfloat16")),
    "subtracted": stack(subtracted),
    "where": stack(lambda h, w: (jnp.where(h > 0, h, h + branch(h, w)), None)),
    "convolutions": stack(
        lambda h, w: (h + conv(jnp.tanh(conv(h, w["up"][None])), w["down"][None]), None),
        lambda x: x[None], lambda h: h[0],
    ),
    "two_carries": stack(two_carries, lambda x: (x, jnp.sin(x)), lambda s: s[0] + s[1]),
    "reversed": lambda p, x: lax.scan(lambda h, w: (h + branch(h, w), None), x, p, reverse=True)[0],
}  # fmt: skip

OTHERS = {
    "norm_after_the_sum": stack(lambda h, w: (rms_norm(h + branch(h, w), 1.0), None)),
    "plain": stack(lambda h, w: (branch(h, w), None)),
    "constant": stack(lambda h, w: (h + branch(h, w) + 1, None)),
    "one_at_zero": stack(lambda h, w: (h + jnp.cos(branch(h, w)), None)),
    "scaled": stack(lambda h, w: (2 * h + branch(h, w), None)),
    "transposed": stack(lambda h, w: ((h + branch(h, w)).T, None), lambda x: x.T @ x),
    "swapped": stack(lambda s, w: ((s[1], s[0] + branch(s[1], w)), None), lambda x: (x, x)),
    "counter": stack(
        lambda s, w: ((s[0] + s[1] * branch(s[0], w), s[1] + 1), None), lambda x: (x, 1.0)
    ),
    "norm_without_epsilon": stack(
        lambda h, w: (h + branch(h, w) * lax.rsqrt(jnp.square(branch(h, w)).mean()), None)
    ),
    "rounded": stack(lambda h, w: ((h.astype("bfloat16") + branch(h, w)).astype(h.dtype), None)),
}


def layers_of(found):
    """The group of the layers."""
    (group,) = (g for g in found.groups if any(s == "down:0" for s in [g.name, *map(key, g.slots)]))
    return group


def key(slot):
    return f"{slot.leaf}:{slot.axis}"


@pytest.mark.parametrize("name", thinned(IDENTITIES, 4))
def test_layers_of_a_scan_are_units(name):
    """The network without a layer is the masked one, in outputs and gradients."""
    apply = IDENTITIES[name]
    found = st.find_groups(apply, LAYERS, X)
    group = layers_of(found)
    assert group.exact and group.units == 3 and group.ordered
    units = {group.name: np.array([True, False, True])}
    small, compact = st.compact(found, LAYERS, units)
    assert small["down"].shape == (2, 5, 4)
    masked = jax.tree.map(jnp.multiply, LAYERS, st.expand(found, units))

    def both(f, p):
        return jax.value_and_grad(lambda p: jnp.sin(f(p, X).astype("float32")).sum())(p)

    (a, wide), (b, narrow) = jax.jit(lambda: (both(apply, masked), both(compact, small)))()
    assert a == pytest.approx(float(b), rel=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(x).max()),
        st.take(found, wide, units),
        narrow,
    )


@pytest.mark.parametrize("name", OTHERS)
def test_layers_that_change_the_carry_when_masked_stay(name):
    found = st.find_groups(OTHERS[name], LAYERS, X)
    for axes in found.pinned.values():
        assert "`scan` runs along it, and a masked step changes the carry" in axes[0]


def test_layers_with_numbers_that_are_no_parameters_are_not_exact():
    """A layer's number remains where its parameters are masked."""

    def apply(p, x):
        layers = p, jnp.arange(3.0)
        return lax.scan(lambda h, w: (h + branch(h, w[0]) + w[1], None), x, layers)[0]

    group = layers_of(st.find_groups(apply, LAYERS, X))
    assert group.inexact == ("`scan` runs along it, and a step changes the carry",)


def test_results_of_layers():
    """Zero where a layer is masked, so that their sum is exact; the carries are not."""

    def summed(result):
        def apply(p, x):
            h, ys = lax.scan(lambda h, w: (h + branch(h, w), result(h, w)), x, p)
            return h.sum() + ys.sum()

        return layers_of(st.find_groups(apply, LAYERS, X))

    assert summed(branch).exact
    inexact = summed(lambda h, w: h)
    assert inexact.inexact == ("`reduce_sum` runs over units that are not zero when masked",)
    found = st.find_groups(lambda p, x: lax.scan(lambda h, w: (h, w["up"]), x, p), LAYERS, X)
    assert "an axis of result 1" in found.pinned["up"][0]


def test_steps_that_read_data_stay():
    found = st.find_groups(
        lambda p, x: lax.scan(lambda h, w: (h + branch(h, w[0]) * w[1], None), x, (p, x[0, :3]))[0],
        LAYERS,
        X,
    )
    assert "`scan` runs along it" in found.pinned["up"][0]


def test_layers_with_a_primitive_that_cannot_be_vmapped_stay():
    primitive = Primitive("only_alone")
    primitive.def_abstract_eval(lambda x: x)
    apply = stack(lambda h, w: (h + primitive.bind(h) @ w["up"] @ w["down"], None))
    found = st.find_groups(apply, LAYERS, X)
    assert found.unknown == ("only_alone",)
    assert "`scan` runs along it, and a masked step changes the carry" in found.pinned["up"][0]


def test_layers_whose_branches_are_masked_are_dead():
    found = st.find_groups(IDENTITIES["residual"], LAYERS, X)
    mask = jax.tree.map(lambda p: np.ones(p.shape, bool), LAYERS)
    name = layers_of(found).name
    assert st.live_units(found, mask)[name].all()
    mask["down"][1] = False
    assert st.live_units(found, mask)[name].tolist() == [True, False, True]


# --- residual blocks

NAMES = ("a", "b", "c")
BLOCKS = {n: jax.tree.map(lambda p, k=k: p[k], LAYERS) for k, n in enumerate(NAMES)}
OF_A = ("a/bias", "a/down", "a/scale", "a/up")


def unrolled(layer):
    def apply(p, x):
        for name in NAMES:
            x = layer(x, p[name])
        return x

    return apply


WRITTEN_OUT = {
    "residual": unrolled(lambda h, w: h + branch(h, w)),
    "rematerialised": unrolled(jax.checkpoint(lambda h, w: h + branch(h, w))),
    "activation_after_the_sum": unrolled(lambda h, w: jax.nn.relu(branch(h, w) + h)),
    "subtracted": unrolled(lambda h, w: h - branch(h, w)),
    "compiled": unrolled(jax.jit(lambda h, w: h + branch(h, w))),
    "convolutions": unrolled(
        lambda h, w: h + conv(jnp.tanh(conv(h[None], w["up"][None]) + w["bias"]),
                              w["down"][None])[0] * w["scale"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", thinned(WRITTEN_OUT, 4))
def test_a_block_that_is_gone_is_a_masked_one(name):
    """In outputs and gradients, also for other batch sizes and after units are removed."""
    apply = WRITTEN_OUT[name]
    found = st.find_groups(apply, BLOCKS, X)
    blocks = st.blocks(found)
    assert blocks["a/bias"] == OF_A and len(blocks) == 3
    smaller, shallow = st.remove_blocks(found, BLOCKS, ["a/bias", "b/bias"])
    assert smaller["a"] == smaller["b"] == dict.fromkeys(LAYERS)
    again = st.find_groups(shallow, smaller, X)
    units = {"c/bias:0": np.arange(5) % 2 == 0}
    narrow, compact = st.compact(again, smaller, units)
    mask = st.expand(found, units)
    gone = {n: jax.tree.map(jnp.zeros_like, BLOCKS[n]) for n in "ab"}
    masked = {**gone, "c": jax.tree.map(jnp.multiply, BLOCKS["c"], mask["c"])}

    def both(f, p):
        return jax.value_and_grad(lambda p: jnp.sin(f(p, data(3, 4, seed=7))).sum())(p)

    (a, wide), (b, small) = jax.jit(lambda: (both(apply, masked), both(compact, narrow)))()
    assert a == pytest.approx(float(b), rel=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(x).max()),
        st.take(found, wide, units)["c"],
        small["c"],
    )


@pytest.mark.parametrize(
    "layer",
    [
        lambda h, w: h + jnp.cos(branch(h, w)),
        lambda h, w: branch(h, w),
        lambda h, w: h @ w["up"] + w["bias"] + branch(h, w) @ w["up"],
        lambda h, w: h + branch(h, {**w, "down": w["down"] + 1, "bias": w["bias"] + 1}),
    ],
)
def test_other_layers_are_no_blocks(layer):
    assert st.blocks(st.find_groups(lambda p, x: layer(x, p), BLOCKS["a"], X)) == {}


def test_a_leaf_that_others_read_is_in_no_block():
    def apply(p, x):
        for name in NAMES:
            x = x + branch(x, {**p[name], "down": p["a"]["down"]})
        return x

    params = {"a": BLOCKS["a"], "b": BLOCKS["b"] | {"down": X}, "c": BLOCKS["c"] | {"down": X}}
    blocks = st.blocks(st.find_groups(apply, params, X))
    assert blocks["a/bias"] == ("a/bias", "a/scale", "a/up")


def test_wrong_blocks_and_parameters_are_refused():
    found = st.find_groups(WRITTEN_OUT["residual"], BLOCKS, X)
    with pytest.raises(ValueError, match=r"`names` is 'a/up'; .*must be one of: a/bias, b"):
        st.remove_blocks(found, BLOCKS, ["a/up"])
    with pytest.raises(ValueError, match="`params`"):
        st.remove_blocks(found, BLOCKS["a"], ["a/bias"])
    _, apply = st.remove_blocks(found, BLOCKS, ["a/bias"])
    with pytest.raises(ValueError, match="`params` must have the structure"):
        apply(BLOCKS, X)
