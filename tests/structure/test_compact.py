"""The compact function under every transformation, and what it refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive

from lth_jax import structure as st
from lth_jax.models.convolution import conv_general_dilated
from lth_jax.structure.rules import RULES, elementwise, keep


def mlp(p, x):
    return jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"] + p["c"]


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 6), "b": (6,), "v": (6, 2), "c": (2,)}
    params = {k: jnp.asarray(rng.normal(size=s), "float32") for k, s in shapes.items()}
    x = jnp.asarray(rng.normal(size=(3, 4)), "float32")
    found = st.find_groups(mlp, params, x)
    units = {"b:0": np.array([True, False, True, True, False, False])}
    return found, params, x, units


def masked(found, params, units):
    return jax.tree.map(jnp.multiply, st.expand(found, units), params)


def test_shapes_are_enough():
    shape = lambda *n: jax.ShapeDtypeStruct(n, jnp.float32)  # noqa: E731
    params = {"w": shape(4, 6), "b": shape(6), "v": shape(6, 2), "c": shape(2)}
    (group,) = st.find_groups(mlp, params, shape(3, 4)).groups
    assert [(s.leaf, s.axis, s.indices.shape) for s in group.slots] == [
        ("b", 0, (6, 1)), ("v", 0, (6, 1)), ("w", 1, (6, 1)),
    ]  # fmt: skip


def test_reasons_are_given_for_what_stays(case):
    found = case[0]
    assert found.pinned["w"] == (("an axis of the argument '0'",), ())
    assert found.pinned["c"] == (("an axis of result 0",),)


def test_compact_of_everything_kept_is_the_function(case):
    found, params, x, _ = case
    small, apply = st.compact(found, params, {})
    jax.tree.map(np.testing.assert_array_equal, small, params)
    np.testing.assert_array_equal(apply(small, x), mlp(params, x))


def test_other_batch_sizes(case):
    found, params, _, units = case
    small, apply = st.compact(found, params, units)
    x = jnp.ones((7, 4))
    np.testing.assert_allclose(apply(small, x), mlp(masked(found, params, units), x), rtol=1e-5)


# Operations whose rule reads the values of an array; the array is closed over, not a literal.
ONES, ZEROS, PLACES = jnp.ones(3), jnp.zeros(3), jnp.array([2, 0, 1])
READERS = {
    "broadcast": lambda params, h: h + ONES,
    "gather": lambda params, h: jnp.tanh(h @ params["s"][0])[:, PLACES],
    "power": lambda params, h: (1 + h) ** ONES,
    "scan": lambda params, h: lax.scan(lambda h, w: (h + (h @ w) * ZEROS, None), h, params["s"])[0],
    "slice": lambda params, h: lax.dynamic_slice(h, (0, PLACES[1]), h.shape),
}


@pytest.mark.parametrize("name", READERS)
def test_arrays_that_are_closed_over_keep_their_values_in_a_trace(name):
    def apply(params, x):
        return READERS[name](params, jnp.tanh(x @ params["w"])) @ params["v"]

    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3), "v": (3, 2), "s": (5, 3, 3)}
    params = {leaf: rng.normal(size=shape).astype("float32") for leaf, shape in shapes.items()}
    found = st.find_groups(apply, params, jnp.ones((2, 4)))
    units = {group.name: np.arange(group.units) > 0 for group in found.groups if group.exact}
    small, compact = st.compact(found, params, units)
    x = rng.normal(size=(7, 4)).astype("float32")  # a batch of another size is traced again
    masked = jax.tree.map(lambda m, v: np.where(m, v, 0), st.expand(found, units), params)
    wanted = apply(masked, x)
    np.testing.assert_allclose(jax.jit(compact)(small, x), wanted, atol=1e-5)


def test_training_compact_is_training_masked(case):
    found, params, x, units = case
    y = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)), "float32")
    mask = st.expand(found, units)
    optimizer = optax.adam(1e-2)

    def train(apply, params, project):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(lambda p: jnp.mean((apply(p, x) - y) ** 2))(params)
            updates, state = optimizer.update(project(grads), state, params)
            return (optax.apply_updates(params, updates), state), None

        return lax.scan(step, (params, optimizer.init(params)), length=20)[0][0]

    start = masked(found, params, units)
    wide = train(mlp, start, lambda g: jax.tree.map(jnp.multiply, mask, g))
    small, apply = st.compact(found, start, units)
    narrow = train(apply, small, lambda g: g)
    for a, b in zip(
        jax.tree.leaves(st.take(found, wide, units)), jax.tree.leaves(narrow), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_population_of_equal_shapes_shares_one_function(case):
    found, params, x, units = case
    chosen = [units, {"b:0": units["b:0"][::-1]}]
    _, apply = st.compact(found, params, chosen[0])
    stacked = jax.tree.map(lambda *s: jnp.stack(s), *(st.take(found, params, u) for u in chosen))
    outs = jax.jit(jax.vmap(apply, (0, None)))(stacked, x)
    for out, u in zip(outs, chosen, strict=True):
        np.testing.assert_allclose(out, mlp(masked(found, params, u), x), atol=1e-6)


def test_unit_masks_of_a_population_expand_under_vmap(case):
    found, *_ = case
    flags = jnp.array([[True] * 6, [True, False] * 3])
    mask = jax.vmap(lambda f: st.expand(found, {"b:0": f}))(flags)
    assert mask["w"].shape == (2, 4, 6)
    np.testing.assert_array_equal(mask["w"][1], np.broadcast_to(flags[1], (4, 6)))


def test_it_can_be_exported(case):
    found, params, x, units = case
    small, apply = st.compact(found, params, units)
    exported = jax.export.export(jax.jit(apply))(small, x)
    np.testing.assert_allclose(exported.call(small, x), apply(small, x), atol=1e-6)


def test_strict_promotion_holds(case):
    found, params, x, units = case
    with jax.numpy_dtype_promotion("strict"):
        small, apply = st.compact(found, params, units)
        apply(small, x)
        st.score_units(found, params)


# --- derivatives of one's own


@jax.custom_vjp
def reversed_gradient(x):
    return 2 * x


reversed_gradient.defvjp(lambda x: (2 * x, x), lambda x, g: (-g * jnp.cos(x),))


@jax.custom_jvp
def scaled(x, count):
    return x * count


@scaled.defjvp
def _(primals, tangents):
    (x, count), (dx, _) = primals, tangents
    return scaled(x, count), 3 * scaled(dx, count)


@pytest.mark.parametrize(
    "activation",
    [
        reversed_gradient,
        lambda x: scaled(x, 2),
        lambda x: jax.grad(lambda z: (scaled(z, 2) * z).sum())(x),
    ],
    ids=["vjp", "jvp", "jvp of jvp"],
)
def test_custom_rules_are_kept(activation, check):
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 6))), "v": jnp.asarray(rng.normal(size=(6, 2)))}
    found = check(lambda p, x: activation(x @ p["w"]) @ p["v"], params, jnp.ones((2, 3)))
    assert [g.units for g in found.groups] == [6]


@jax.custom_vjp
def weighted(x, table, count):
    return x * table * count


def weighted_forward(x, table, count):
    assert not table.perturbed and not count.perturbed, "only `x` is differentiated"
    return weighted(x.value, table.value, count.value), table.value


weighted.defvjp(weighted_forward, lambda table, g: (3 * g * table, None, None), symbolic_zeros=True)


@jax.custom_jvp
def shifted(x, table):
    return x * table, table


@functools.partial(shifted.defjvp, symbolic_zeros=True)
def _(primals, tangents):
    (x, table), (dx, dtable) = primals, tangents
    assert isinstance(dtable, SymbolicZero), "only `x` is differentiated"
    return shifted(x, table), (5 * dx * table, dtable)


TABLE = np.arange(1.0, 7.0, dtype="float32")


@pytest.mark.parametrize(
    "activation",
    [
        lambda x: weighted(x, TABLE, 2),
        lambda x: weighted(x, jnp.sin(TABLE), jnp.ones((), jnp.int32)),
        lambda x: shifted(x, TABLE)[0] + shifted(x, TABLE)[1],
    ],
    ids=["vjp", "vjp of integers", "jvp"],
)
def test_rules_that_differentiate_some_arguments_only(activation, check):
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 6)), "float32"),
              "v": jnp.asarray(rng.normal(size=(6, 2)), "float32")}  # fmt: skip
    found = check(lambda p, x: activation(x @ p["w"]) @ p["v"], params, jnp.ones((2, 3)))
    assert [g.units for g in found.groups] == [6]


def test_results_of_a_custom_rule_that_are_not_used_stay_undifferentiated():
    @jax.custom_vjp
    def pair(x):
        return jnp.sin(x), jnp.cos(x)

    def backward(x, cotangents):
        used, unused = cotangents
        assert isinstance(unused, SymbolicZero)
        return (used * jnp.cos(x),)

    pair.defvjp(lambda x: (pair(x.value), x.value), backward, symbolic_zeros=True)
    params = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 2))}
    apply, x = lambda p, x: pair(x @ p["w"])[0] @ p["v"], jnp.ones((1, 3))
    found = st.find_groups(apply, params, x)
    small, compact = st.compact(found, params, {"v:0": np.arange(4) < 3})
    grads = jax.grad(lambda p: compact(p, x).sum())(small)
    np.testing.assert_allclose(grads["w"], 2 * np.cos(3.0) * np.ones((3, 3)), rtol=1e-5)


def test_relu_keeps_its_gradient_at_zero(case):
    found, params, _, units = case
    small, apply = st.compact(found, params, units)
    flat = jax.tree.map(jnp.zeros_like, small) | {"v": jnp.ones_like(small["v"])}
    gradient = jax.grad(lambda p: apply(p, jnp.ones((1, 4))).sum())(flat)
    np.testing.assert_array_equal(gradient["b"], 0)


def test_forward_over_reverse(case):
    found, params, x, units = case
    small, apply = st.compact(found, params, units)

    def hessian_product(f, p):
        gradient = jax.grad(lambda q: jnp.sum(jnp.tanh(f(q, x))))
        return jax.jvp(gradient, (p,), (p,))[1]

    wide = st.take(found, hessian_product(mlp, masked(found, params, units)), units)
    narrow = hessian_product(apply, small)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), wide, narrow)


def test_a_rule_that_ties_other_units_is_refused():
    @jax.custom_jvp
    def f(x):
        return x

    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0][:, ::-1]))
    params = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 2))}
    found = st.find_groups(lambda p, x: f(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    units = {found.groups[0].name: np.array([True, True, True, False])}
    small, apply = st.compact(found, params, units)
    with pytest.raises(ValueError, match="custom derivative"):
        jax.grad(lambda p: apply(p, jnp.ones((1, 3))).sum())(small)


# --- primitives without a rule, and the registry


@pytest.fixture
def unknown():
    """A primitive without a rule."""
    primitive = Primitive("unheard_of")
    primitive.def_abstract_eval(lambda x: x)
    return primitive


def test_unknown_primitives_pin_and_are_named(unknown):
    def apply(p, x):
        return unknown.bind(x @ p["w"]) @ p["v"] + jax.nn.relu(x @ p["a"]) @ p["b"]

    params = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 2)), "a": jnp.ones((3, 5)),
              "b": jnp.ones((5, 2))}  # fmt: skip
    found = st.find_groups(apply, params, jnp.ones((1, 3)))
    assert found.unknown == ("unheard_of",)
    assert found.pinned["w"][1] == ("`unheard_of` has no rule",)
    assert [g.units for g in found.groups] == [5]


def test_transforms_pin_what_they_run_along():
    params = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 2))}
    found = st.find_groups(
        lambda p, x: jnp.abs(jnp.fft.fft(x @ p["w"], axis=-1)) @ p["v"], params, jnp.ones((1, 3))
    )
    assert found.unknown == () and found.groups == ()
    assert found.pinned["w"][1] == found.pinned["v"][0] == ("`fft` runs along it",)


def test_a_primitive_can_bring_its_rule(check):
    def halved(x):
        return lax.erf_inv(lax.erf(x))

    rule = RULES.pop("erf_inv")
    params = {"w": jnp.ones((3, 4)) / 4, "v": jnp.ones((4, 2))}
    args = (lambda p, x: halved(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    try:
        assert st.find_groups(*args).groups == ()
        st.register("erf_inv", link=elementwise(keep))
        check(*args)
    finally:
        RULES["erf_inv"] = rule


@pytest.mark.parametrize("groups", [1, 3])
def test_the_fast_convolution_brings_its_rule(groups, check):
    rng = np.random.default_rng(0)
    stem, kernel, out = (rng.normal(size=s) / 3 for s in [
        (3, 3, 5, 6), (3, 3, 6 // groups, 6), (1, 1, 6, 2)])  # fmt: skip
    params = jax.tree.map(lambda a: jnp.asarray(a, "float32"), {"s": stem, "k": kernel, "o": out})

    def apply(p, x):
        def conv(x, w, groups=1):
            return conv_general_dilated(
                x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )  # fmt: skip

        h = jax.nn.relu(conv(x, p["s"]))
        return conv(jax.nn.relu(conv(h, p["k"], groups)), p["o"])

    found = check(apply, params, jnp.asarray(rng.normal(size=(2, 4, 4, 5)), "float32"))
    assert found.unknown == ()
    assert sorted(g.units for g in found.groups) == ([6, 6] if groups == 1 else [3])


# --- bad input: one sentence


def refused(match, call, *args, **options):
    with pytest.raises(ValueError, match=match) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("apply", "which"),
    [
        (lambda p, x: x @ p["w"] if p["b"].sum() > 0 else x, r"p\['b'\]"),
        (lambda p, x: x * float(p["w"][0, 0]), r"p\['w'\]"),
        (lambda p, x: jnp.zeros(int(p["c"][0])) + x.sum(), r"p\['c'\]"),
        (lambda p, x: x @ p["w"][:, jnp.flatnonzero(p["b"])], r"p\['b'\]"),
        (lambda p, x: x[jnp.flatnonzero(x)] @ p["w"], "x"),
    ],
    ids=["control flow", "a number", "a shape", "as many as there are", "data"],
)
def test_functions_that_depend_on_values_are_refused_by_the_leaf(apply, which, case):
    _, params, x, _ = case
    refused(f"`apply` must be jittable.*the value of {which}\\)", st.find_groups, apply, params, x)


def test_boolean_indices_are_refused_by_their_shape(case):
    _, params, x, _ = case
    refused(r"`apply` must be jittable.*must be concrete; got bool\[3,4\]", st.find_groups,
            lambda p, x: x[x > 0] @ p["b"], params, x)  # fmt: skip


def test_parameters_must_be_an_argument(case):
    _, params, x, _ = case
    refused("does not read any leaf of `params`, not even 'b'", st.find_groups,
            lambda _, x: mlp(params, x), params, x)  # fmt: skip
    refused("`params` has no leaves", st.find_groups, lambda p, x: x, {}, x)


def test_a_leaf_that_is_not_read_is_named(case):
    _, params, x, _ = case
    found = st.find_groups(mlp, params | {"spare": jnp.ones((2, 2))}, x)
    assert found.unused == ("spare",)
    assert [g.name for g in found.groups] == ["b:0"]


def test_unit_masks_that_do_not_fit_are_refused(case):
    found, params, _, _ = case
    refused(r"`units` names \['z:0'\]", st.compact, found, params, {"z:0": np.ones(6, bool)})
    refused(r"'b:0' must be bool of shape \(6,\)", st.compact, found, params,
            {"b:0": np.ones(7, bool)})  # fmt: skip
    refused(r"'b:0' must be bool", st.compact, found, params, {"b:0": np.ones(6)})
    refused("removes all 6 units, so leaf 'b'", st.compact, found, params,
            {"b:0": np.zeros(6, bool)})  # fmt: skip


def test_parameters_of_other_shapes_are_refused(case):
    found, params, x, units = case
    refused("`params` at 'b' has shape", st.compact, found, params | {"b": jnp.ones(5)}, units)
    _, apply = st.compact(found, params, units)
    refused("`params` at 'b' has shape .6,., but the compact function was made for .3,.", apply,
            params, x)  # fmt: skip


def test_softmax_over_experts_is_reported_as_inexact(compare_units):
    rng = np.random.default_rng(0)
    shapes = {"route": (3, 4), "up": (4, 3, 5), "down": (4, 5, 2)}
    params = {k: jnp.asarray(rng.normal(size=s), "float32") for k, s in shapes.items()}
    x = jnp.asarray(rng.normal(size=(2, 3)), "float32")

    def experts(p, x):
        gate = jax.nn.softmax(x @ p["route"])
        h = jax.nn.relu(jnp.einsum("bc,ecd->bed", x, p["up"]))
        return jnp.einsum("be,bed,edo->bo", gate, h, p["down"])

    found = st.find_groups(experts, params, x)
    sizes = {g.units: g for g in found.groups}
    assert sorted(sizes) == [4, 5]
    assert sizes[5].exact and not sizes[4].exact
    assert "reduce_sum" in " ".join(sizes[4].inexact)
    units = {sizes[4].name: np.array([True, True, False, True])}
    refused("differs from the masked one", st.compact, found, params, units)
    small, apply = st.compact(found, params, units, inexact=True)
    gate = jax.nn.softmax((x @ params["route"])[:, units[sizes[4].name]])
    h = jax.nn.relu(jnp.einsum("bc,ecd->bed", x, small["up"]))
    expected = jnp.einsum("be,bed,edo->bo", gate, h, small["down"])
    np.testing.assert_allclose(apply(small, x), expected, atol=1e-5)


def test_the_structure_is_a_plain_record(case):
    assert {f.name for f in dataclasses.fields(case[0])} >= {"groups", "pinned", "unknown"}
