"""Every primitive that has a rule: a small network through it, some units removed, and compared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from lth_jax import structure as st
from lth_jax.models.convolution import conv_general_dilated
from lth_jax.structure.rules import RULES

UNITS = 6


def whole(f):
    """An operation on integers, between two casts."""
    return lambda h: f(jnp.round(4 * h).astype(jnp.int32)).astype(jnp.float32)


def flag(f):
    """An operation on booleans or one that gives them."""
    return lambda h: f(h).astype(jnp.float32)


def compared(name, h):
    return getattr(lax, name)(h, 0.3)


def images(f):
    """An operation on `[2, 3, 3, units]`, averaged over space afterwards."""
    return lambda h: f(h[:, None, None, :] * jnp.arange(1.0, 10.0).reshape(3, 3, 1)).mean((1, 2))


def convolved(conv):
    def f(h):
        kernel = jnp.ones((3, 3, 1, UNITS)) / 9
        numbers = ("NHWC", "HWIO", "NHWC")
        return conv(h, kernel, (1, 1), "SAME", dimension_numbers=numbers,
                    feature_group_count=UNITS)  # fmt: skip

    return images(f)


@jax.custom_vjp
def own_backward(h):
    return h * h


own_backward.defvjp(lambda h: (h * h, h), lambda h, g: (2 * g * h,))

KEY = jax.random.key(0)

# Units come out as they went in, and a network without some is the masked one.
EXACT = {
    **{name: getattr(lax, name) for name in (
        "abs", "asinh", "atan", "cbrt", "ceil", "cos", "cosh", "erf", "erfc", "exp", "exp2",
        "expm1", "floor", "neg", "round", "sign", "sin", "sinh", "square", "tan", "tanh",
        "logistic", "stop_gradient",
    )},
    "acos": lambda h: lax.acos(jnp.tanh(h) / 2),
    "asin": lambda h: lax.asin(jnp.tanh(h) / 2),
    "atanh": lambda h: lax.atanh(jnp.tanh(h) / 2),
    "erf_inv": lambda h: lax.erf_inv(jnp.tanh(h) / 2),
    "log1p": lambda h: lax.log1p(h * h),
    "sqrt": lambda h: lax.sqrt(h * h),
    "atan2": lambda h: lax.atan2(h, jnp.ones_like(h)),
    "nextafter": lambda h: lax.nextafter(h, h + 1),
    "and": whole(lambda n: n & 5),
    "or": whole(lambda n: n | 4),
    "xor": whole(lambda n: n ^ 3),
    "not": whole(lambda n: ~n),
    "clz": whole(lax.clz),
    "population_count": whole(lax.population_count),
    "shift_left": whole(lambda n: n << 1),
    "shift_right_arithmetic": whole(lambda n: n >> 1),
    "shift_right_logical": whole(lambda n: lax.shift_right_logical(n, 1)),
    "bitcast_convert_type": lambda h: lax.bitcast_convert_type(
        lax.bitcast_convert_type(h, jnp.int32), jnp.float32),
    **{name: flag(functools.partial(compared, name)) for name in (
        "eq", "ne", "ge", "gt", "le", "lt")},
    "is_finite": flag(lax.is_finite),
    "real": lambda h: jnp.real(h + 1j * h),
    "imag": lambda h: jnp.imag(h + 1j * h),
    "conj": lambda h: jnp.real(lax.conj(h + 1j * h)),
    "convert_element_type": lambda h: h.astype(jnp.bfloat16).astype(jnp.float32),
    "reduce_precision": lambda h: lax.reduce_precision(h, 8, 7),
    "copy": lambda h: jnp.array(h, copy=True),
    "name": lambda h: checkpoint_name(h, "hidden"),
    "device_put": lambda h: jax.device_put(h),
    "optimization_barrier": lambda h: lax.optimization_barrier(h),
    "add": lambda h: h + jnp.sin(h),
    "sub": lambda h: h - jnp.sin(h),
    "mul": lambda h: h * jnp.cos(h),
    "add_any": lambda h: jax.grad(lambda g: (jnp.sin(g) * g).sum())(h),
    "div": lambda h: h / (2 + jnp.cos(h)),
    "rem": lambda h: lax.rem(h, jnp.full_like(h, 0.7)),
    "max": lambda h: jnp.maximum(h, -h / 2),
    "min": lambda h: jnp.minimum(h, h / 2),
    "clamp": lambda h: lax.clamp(-0.5, h, 0.5),
    "select_n": lambda h: jnp.where(h > 0, h, 2 * h),
    "integer_pow": lambda h: h**3,
    "pow": lambda h: jnp.abs(h) ** 1.5,
    "broadcast_in_dim": lambda h: jnp.broadcast_to(h, (3, *h.shape)).sum(0),
    "squeeze": lambda h: lax.squeeze(h[:, None, :], (1,)),
    "transpose": lambda h: h.T.T,
    "rev": lambda h: h[:, ::-1],
    "tile": lambda h: lax.tile(h, (2, 1))[:2],
    "reshape": lambda h: h.reshape(2, 1, UNITS).reshape(2, UNITS),
    "concatenate": lambda h: jnp.concatenate([h, 2 * h], 0)[2:],
    "split": lambda h: sum(jnp.split(h, 2, 0))[None] * jnp.ones((2, 1)),
    "slice": lambda h: h[:1] * jnp.ones((2, 1)),
    "pad": lambda h: jnp.pad(h, ((1, 0), (0, 0)))[1:],
    "stack": lambda h: jnp.stack([h, jnp.sin(h)]).sum(0),
    "unstack": lambda h: sum(jnp.unstack(h)) * jnp.ones((2, 1)),
    "dynamic_slice": lambda h: lax.dynamic_slice(h, (1, 0), (1, UNITS)) * jnp.ones((2, 1)),
    "dynamic_update_slice": lambda h: lax.dynamic_update_slice(h, jnp.sin(h[:1]), (1, 0)),
    "gather": lambda h: h[jnp.array([1, 0])],
    "scatter": lambda h: h.at[0].set(2 * h[1]),
    "scatter-add": lambda h: h.at[jnp.array([1, 1])].add(h),
    "scatter-sub": lambda h: h.at[0].subtract(h[1]),
    "scatter-mul": lambda h: h.at[0].multiply(h[1]),
    "scatter-min": lambda h: h.at[0].min(h[1]),
    "scatter-max": lambda h: h.at[0].max(h[1]),
    "iota": lambda h: h * (1 + lax.broadcasted_iota(jnp.float32, h.shape, 1)),
    "random_bits": lambda h: h * jax.random.uniform(KEY, h.shape),
    "random_gamma": lambda h: h * jax.random.gamma(KEY, 2.0, h.shape),
    "random_seed": lambda h: h * jax.random.uniform(jax.random.key(h.shape[0]), h.shape),
    "random_split": lambda h: h * jax.random.uniform(jax.random.split(KEY)[1], h.shape),
    "random_fold_in": lambda h: h * jax.random.uniform(jax.random.fold_in(KEY, 3), h.shape),
    "random_clone": lambda h: h * jax.random.uniform(jax.random.clone(KEY), h.shape),
    "random_wrap": lambda h: h * jax.random.uniform(
        jax.random.wrap_key_data(jnp.arange(2, dtype=jnp.uint32)), h.shape),
    "random_unwrap": lambda h: h * jax.random.key_data(KEY).sum().astype(jnp.float32),
    "rng_uniform": lambda h: h + 0 * lax.rng_uniform(0.0, 1.0, h.shape),
    "dot_general": lambda h: jnp.einsum("bu,cu->cu", h, h),
    "conv_general_dilated": convolved(lax.conv_general_dilated),
    "conv": convolved(conv_general_dilated),
    "reduce_sum": lambda h: h - h.sum(0),
    "reduce_max": lambda h: h - h.max(0),
    "reduce_min": lambda h: h - h.min(0),
    "reduce_prod": lambda h: h - h.prod(0),
    "reduce_or": flag(lambda h: (h > 0).any(0) | (h < -1)),
    "reduce_and": flag(lambda h: (h > 0).all(0) | (h < -1)),
    "reduce_xor": lambda h: h + lax.reduce_xor(jnp.round(h).astype(jnp.int32), (0,)),
    "argmax": lambda h: h + jnp.argmax(h, 0),
    "argmin": lambda h: h + jnp.argmin(h, 0),
    "cumsum": lambda h: jnp.cumsum(h, 0),
    "cumprod": lambda h: jnp.cumprod(h, 0),
    "cummax": lambda h: lax.cummax(h, 0),
    "cummin": lambda h: lax.cummin(h, 0),
    "cumlogsumexp": lambda h: lax.cumlogsumexp(h, 0),
    "sort": lambda h: jnp.sort(h, 0),
    "top_k": lambda h: lax.top_k(h.T, 1)[0].T * jnp.ones((2, 1)),
    "reduce_window_sum": lambda h: lax.reduce_window(h, 0.0, lax.add, (2, 1), (1, 1), "SAME"),
    "reduce_window_max": lambda h: lax.reduce_window(h, -jnp.inf, lax.max, (2, 1), (1, 1), "SAME"),
    "reduce_window_min": lambda h: lax.reduce_window(h, jnp.inf, lax.min, (2, 1), (1, 1), "SAME"),
    "remat2": jax.checkpoint(jnp.sin),
    "scan": lambda h: lax.scan(lambda c, _: (jnp.sin(c), None), h, None, length=2)[0],
    "while": lambda h: lax.while_loop(lambda c: c.sum() > 1e9, jnp.sin, h),
    "cond": lambda h: lax.cond(h.sum() > 1e9, jnp.sin, jnp.cos, h),
    "custom_jvp_call": jax.nn.relu,
    "custom_vjp_call": own_backward,
}  # fmt: skip

# What a masked unit holds afterwards is infinite or no number, so these are not exact.
POLES = {
    "acosh": lambda h: lax.acosh(1 / h),
    "digamma": lax.digamma,
    "lgamma": lax.lgamma,
    "log": lambda h: lax.log(jnp.abs(h)),
    "rsqrt": lambda h: lax.rsqrt(jnp.abs(h)),
}

ELSEWHERE = {
    "eq_to", "le_to", "lt_to",  # total orders, which no public function makes
    "layout_constraint", "pvary", "reshard", "sharding_constraint",  # meshes of several devices
    "checkpoint",  # the other name of `remat2`
}  # fmt: skip


def primitives(f, *args):
    """The names of all primitives in a function, inner programs included."""
    found = set()

    def visit(jaxpr):
        for eqn in jaxpr.eqns:
            found.add(eqn.primitive.name)
            for value in eqn.params.values():
                for inner in value if isinstance(value, tuple | list) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        visit(inner)

    visit(jax.make_jaxpr(f)(*args).jaxpr)
    return found


def network(middle):
    return lambda p, x: middle(x @ p["w"]) @ p["v"]


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, UNITS)), "v": rng.normal(size=(UNITS, 2))}
    return jax.tree.map(lambda a: jnp.asarray(a, "float32"), params), jnp.asarray(
        rng.normal(size=(2, 3)), "float32"
    )


@pytest.mark.parametrize("name", EXACT)
def test_a_network_through_it_loses_units_exactly(name, case):
    params, x = case
    apply = network(EXACT[name])
    found = st.find_groups(apply, params, x)
    met = primitives(EXACT[name], jnp.ones((2, UNITS)))
    assert ({"remat2", "checkpoint"} if name == "remat2" else {name}) & met, "it is not in there"
    assert found.unknown == ()
    [group] = found.groups
    assert group.units == UNITS and group.exact
    units = {group.name: np.array([True, False, True, True, False, False])}
    small, compact = st.compact(found, params, units)
    masked = jax.tree.map(jnp.multiply, st.expand(found, units), params)
    np.testing.assert_allclose(compact(small, x), apply(masked, x), atol=1e-5)


@pytest.mark.parametrize("name", POLES)
def test_a_pole_at_zero_is_not_exact(name, case):
    params, x = case
    apply = network(POLES[name])
    found = st.find_groups(apply, params, x)
    assert name in primitives(POLES[name], jnp.ones((2, UNITS)))
    [group] = found.groups
    assert not group.exact
    masked = jax.tree.map(
        jnp.multiply, st.expand(found, {group.name: np.arange(UNITS) > 0}), params
    )
    assert not np.isfinite(apply(masked, x)).all()  # what the flag says is true


def test_every_rule_has_its_case():
    assert set(RULES) - set(EXACT) - set(POLES) == ELSEWHERE
