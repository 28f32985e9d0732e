"""Every primitive that has a rule: a small network through it, some units removed, and compared."""

import contextlib
import functools
import importlib
import inspect
import pkgutil

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Primitive
from jax.extend.core.primitives import threefry2x32_p
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from lth_jax import structure as st
from lth_jax.models.convolution import conv_general_dilated
from lth_jax.structure.constraints import Links
from lth_jax.structure.graph import TRANSPARENT, Op, Value
from lth_jax.structure.rules import RULES
from lth_jax.structure.solvers import REFUSED
from tests.thinning import thinned

UNITS = 6


def whole(f):
    """An operation on integers, between two casts."""
    return lambda h: f(jnp.round(4 * h).astype(jnp.int32)).astype(jnp.float32)


def flag(f):
    """An operation on booleans, or with boolean results."""
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


def on_two_devices(f, out="d", **options):
    """An operation inside a program for two devices, which hold a row of the batch each."""

    def run(h):
        mesh = jax.make_mesh((2,), ("d",), (AxisType.Auto,), devices=jax.devices()[:2])
        g = jax.shard_map(f, mesh=mesh, in_specs=P("d"), out_specs=P(out), **options)
        return g(h) * jnp.ones((2, 1))

    return run


def matrices(f):
    """An operation on a positive definite matrix for each unit, summed to a number for each."""

    def run(h):
        columns = h.T[:, :, None]
        outs = f(columns * columns.swapaxes(1, 2) + jnp.eye(2))
        return jnp.ones((2, 1)) * sum(
            jnp.real(o).sum(tuple(range(1, o.ndim))) for o in jax.tree.leaves(outs)
        )

    return run


def pooled(h):
    images = h[:, None, :] * jnp.arange(1.0, 5.0)[:, None]
    window = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 1), (1, 2, 1), "VALID")  # noqa: E731
    return window, images


def smallest(a, b):
    return jnp.where(a * a < b * b, a, b)


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
    "bessel_i0e": lax.bessel_i0e,
    "bessel_i1e": lax.bessel_i1e,
    "igamma": lambda h: lax.igamma(1 + h * h, 1 + h * h),
    "igammac": lambda h: lax.igammac(1 + h * h, 1 + h * h),
    "igamma_grad_a": lambda h: lax.igamma_grad_a(1 + h * h, 1 + h * h),
    "polygamma": lambda h: lax.polygamma(jnp.ones_like(h), 1 + h * h),
    "zeta": lambda h: lax.zeta(2 + h * h, 1 + h * h),
    "regularized_incomplete_beta": lambda h: lax.betainc(1 + h * h, 1 + h * h, jax.nn.sigmoid(h)),
    "mulhi": whole(lambda n: lax.mulhi(n, n + 2**30)),
    "complex": lambda h: jnp.abs(lax.complex(h, jnp.sin(h))),
    "fft": lambda h: jnp.real(jnp.fft.fft(h, axis=0)),
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
    "empty": lambda h: jnp.where(jnp.ones(h.shape, bool), h, lax.empty(h.shape, h.dtype)),
    "rng_bit_generator": lambda h: h * (lax.rng_bit_generator(
        jnp.arange(4, dtype=jnp.uint32), h.shape)[1] % 7).astype(jnp.float32),
    "threefry2x32": lambda h: h * (threefry2x32_p.bind(*(
        jnp.arange(n, n + h.size, dtype=jnp.uint32).reshape(h.shape) for n in range(4)
    ))[0] % 7).astype(jnp.float32),
    "dot_general": lambda h: jnp.einsum("bu,cu->cu", h, h),
    "ragged_dot_general": lambda h: lax.ragged_dot(
        jnp.ones((2, 2)), jnp.stack([h, 2 * h]), jnp.array([1, 1])),
    "scaled_dot": lambda h: lax.scaled_dot(
        jnp.ones((2, 2), jnp.bfloat16), h.astype(jnp.bfloat16).reshape(2, UNITS),
        lhs_scale=jnp.ones((2, 1), jnp.bfloat16), rhs_scale=jnp.ones((1, UNITS), jnp.bfloat16),
        preferred_element_type=jnp.float32),
    "conv_general_dilated": convolved(lax.conv_general_dilated),
    "conv": convolved(conv_general_dilated),
    "reduce_sum": lambda h: h - h.sum(0),
    "reduce_max": lambda h: h - h.max(0),
    "reduce_min": lambda h: h - h.min(0),
    "reduce_prod": lambda h: h - h.prod(0),
    "reduce": lambda h: h - lax.reduce(h, jnp.inf, smallest, (0,)),
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
    "approx_top_k": lambda h: lax.approx_max_k(h.T, 1)[0].T * jnp.ones((2, 1)),
    "reduce_window": lambda h: lax.reduce_window(h, jnp.inf, smallest, (2, 1), (1, 1), "SAME"),
    "select_and_gather_add": lambda h: jax.jvp(
        pooled(h)[0], (pooled(h)[1],), (jnp.sin(pooled(h)[1]),))[1].sum(1),
    "select_and_scatter_add": lambda h: jax.vjp(*pooled(h))[1](
        jnp.ones((2, 2, UNITS)) * h[:, None])[0].sum(1),
    "reduce_window_sum": lambda h: lax.reduce_window(h, 0.0, lax.add, (2, 1), (1, 1), "SAME"),
    "reduce_window_max": lambda h: lax.reduce_window(h, -jnp.inf, lax.max, (2, 1), (1, 1), "SAME"),
    "reduce_window_min": lambda h: lax.reduce_window(h, jnp.inf, lax.min, (2, 1), (1, 1), "SAME"),
    "remat2": jax.checkpoint(jnp.sin),
    "scan": lambda h: lax.scan(lambda c, _: (jnp.sin(c), None), h, None, length=2)[0],
    "while": lambda h: lax.while_loop(lambda c: c.sum() > 1e9, jnp.sin, h),
    "cond": lambda h: lax.cond(h.sum() > 1e9, jnp.sin, jnp.cos, h),
    "custom_jvp_call": jax.nn.relu,
    "custom_vjp_call": own_backward,
    "shard_map": on_two_devices(jnp.sin),
    "psum": on_two_devices(lambda h: lax.psum(h, "d"), out=None, check_vma=False),
    "psum_invariant": on_two_devices(lambda h: lax.psum(h, "d"), out=None),
    "pmax": on_two_devices(lambda h: lax.pmax(h, "d"), out=None),
    "pmin": on_two_devices(lambda h: lax.pmin(h, "d"), out=None),
    "pvary": on_two_devices(lambda h: h + lax.psum(h, "d")),
    "ppermute": on_two_devices(lambda h: lax.ppermute(h, "d", [(0, 1)])),
    "all_gather": on_two_devices(lambda h: lax.all_gather(h, "d").sum(0)),
    "reduce_scatter": on_two_devices(
        lambda h: lax.psum_scatter(jnp.concatenate([h, 2 * h]), "d", tiled=True)),
    "all_to_all": on_two_devices(
        lambda h: lax.all_to_all(jnp.concatenate([h, 2 * h]), "d", 0, 0, tiled=True)[:1]),
    "cholesky": matrices(jnp.linalg.cholesky),
    "eig": matrices(lambda m: lax.linalg.eig(m, compute_left_eigenvectors=False,
                                             compute_right_eigenvectors=False)),
    "eigh": matrices(jnp.linalg.eigvalsh),
    "householder_product": matrices(lambda m: lax.linalg.householder_product(m, m[..., 0])),
    "hessenberg": matrices(lax.linalg.hessenberg),
    "lu": matrices(lambda m: lax.linalg.lu(m)[0]),
    "lu_pivots_to_permutation": matrices(
        lambda m: lax.linalg.lu_pivots_to_permutation(lax.linalg.lu(m)[1], 2).astype(m.dtype)),
    "qr": matrices(lambda m: jnp.linalg.qr(m)[1]),
    "schur": matrices(lambda m: lax.linalg.schur(m)[0]),
    "svd": matrices(lambda m: jnp.linalg.svd(m, compute_uv=False)),
    "symmetric_product": matrices(lambda m: lax.linalg.symmetric_product(m, m)),
    "tridiagonal": matrices(lambda m: lax.linalg.tridiagonal(m)[1]),
    "tridiagonal_solve": lambda h: lax.linalg.tridiagonal_solve(
        *(jnp.ones((UNITS, 2)) * np.array(n) for n in ([0, 1], [4, 4], [1, 0])), h.T[..., None]
    )[..., 0].T,
    "triangular_solve": lambda h: lax.linalg.triangular_solve(
        jnp.array([[2.0, 0], [1, 3]]), h, left_side=True, lower=True),
}  # fmt: skip

# What a masked unit holds afterwards is infinite or no number, so these are not exact.
POLES = {
    "acosh": lambda h: lax.acosh(1 / h),
    "digamma": lax.digamma,
    "lgamma": lax.lgamma,
    "log": lambda h: lax.log(jnp.abs(h)),
    "rsqrt": lambda h: lax.rsqrt(jnp.abs(h)),
}

# Their rules are those of a primitive above; no public function makes them on one CPU.
ELSEWHERE = {
    "eq_to", "le_to", "lt_to",  # total orders
    "layout_constraint", "reshard", "sharding_constraint",  # meshes: test_sharding.py
    "checkpoint",  # the other name of `remat2`
    "from_edtype", "to_edtype", "tie", "dce_sink",  # inside other functions of JAX
    "all_gather_invariant", "all_gather_reduced", "unreduced_reduce_scatter", "preduced",
    "unreduced_psum", "vary_unreduced_cast_p", "pbroadcast",  # other types of the collectives
    "stage",  # nothing while tracing
    "geqp3", "geqrf", "ormqr", "select_and_scatter", "scaled_matmul", "scaled_matmul_wrapper",
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


@pytest.mark.parametrize("name", thinned(EXACT, 3, slow=2))
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
    assert set(RULES) - set(EXACT) - set(POLES) - set(REFUSED) == ELSEWHERE


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_stays_and_has_a_reason_of_its_own(name):
    links = Links()
    (value, out), atoms = (Value(jax.typeof(jnp.ones((2, 3)))) for _ in range(2)), links.fresh(3)
    op = Op(Primitive(name), {}, (value,), (out,), None)
    (axes,) = RULES[name].link(links, op, [[links.fresh(2), atoms]])
    solution = links.solve()
    assert [len(a) for a in axes] == [2, 3]
    for a in (atoms, *axes):
        (reasons,) = {solution.pinned[c] for c in solution.component[a].tolist()}
        assert f"`{name}`" in reasons[0] and "has no rule" not in reasons[0]


def primitives_in(*packages):
    """The names of all primitives that the modules of some packages define or export."""
    found = set()
    for package in packages:
        modules = [package]
        for info in pkgutil.walk_packages(getattr(package, "__path__", ()), package.__name__ + "."):
            modules.append(importlib.import_module(info.name))
        for module in modules:
            found |= {v.name for v in vars(module).values() if isinstance(v, Primitive)}
    return found


def test_every_primitive_of_lax_has_a_rule_or_a_reason():
    found = primitives_in(jax.lax, jax.extend.core.primitives, jax._src.lax)
    assert len(found) > 200
    assert found - set(RULES) - set(TRANSPARENT) == set()


ARRAY, BATCH = jnp.ones((2, 4)), jnp.ones((1, 2, 4))
# The arguments of the functions of `jax.nn` that take something else than an array.
CALLS = {
    "dot_product_attention": (jnp.ones((1, 2, 3, 4)),) * 3,
    "one_hot": (jnp.array([0, 1]), 3),
    "scaled_matmul": (BATCH, BATCH, BATCH[..., :1], BATCH[..., :1]),
    "scaled_dot_general": (ARRAY, ARRAY, (((1,), (1,)), ((), ()))),
}


def test_every_primitive_of_the_kernels_of_nn_has_a_rule_or_a_reason():
    found = primitives_in(jax._src.cudnn)
    assert found and found - set(RULES) == set()


def test_every_primitive_of_nn_has_a_rule_or_a_reason():
    functions = {n: f for n, f in vars(jax.nn).items() if inspect.isroutine(f) or hasattr(f, "jvp")}
    found, traced = set(), 0
    for name, f in functions.items():
        if name == "get_scaled_dot_general_config":  # settings, not a computation
            continue
        args = CALLS.get(name, (ARRAY,))
        with contextlib.suppress(NotImplementedError):
            found |= primitives(functools.partial(f, *args))
            traced += 1
    assert traced > 30
    assert found - set(RULES) - set(TRANSPARENT) == set()
