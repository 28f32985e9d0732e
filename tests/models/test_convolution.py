"""Our convolution against the stock one: same numbers, derivatives, batches, platforms, errors."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from lth_jax.models import convolution
from lth_jax.models.convolution import conv_general_dilated

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}
# axes, strides, padding, input dilation, kernel dilation, groups, channels in
GRID = [
    (1, 1, "SAME", 1, 1, 1, 1),
    (1, 2, "VALID", 1, 2, 1, 6),
    (1, 3, [(2, 1)], 2, 1, 2, 6),
    (2, 1, "SAME", 1, 1, 1, 6),
    (2, 1, "VALID", 1, 1, 1, 3),
    (2, 2, "SAME", 1, 1, 1, 3),
    (2, 2, "SAME", 1, 1, 1, 6),
    (2, 2, "SAME_LOWER", 1, 2, 2, 6),
    (2, 3, "VALID", 1, 1, 6, 6),
    (2, 1, [(0, 3), (2, 1)], 1, 2, 1, 6),
    (2, 2, [(1, 2), (0, 1)], 2, 1, 1, 3),
    (2, 2, [(1, 2), (0, 1)], 2, 2, 2, 6),
    (2, 1, [(0, -1), (-2, 1)], 1, 1, 1, 3),
    (2, 1, [(0, -1), (-2, 1)], 1, 1, 1, 6),
    (2, 1, [(0, 3), (3, 0)], 1, 1, 1, 6),
    (3, 2, "SAME", 1, 1, 1, 6),
]


def normal(*shape):
    """Drawn by NumPy: JAX would compile a program for every shape."""
    return jnp.float32(np.random.default_rng(sum(shape)).normal(size=shape))


def operands(space, groups, channels, dtype=jnp.float32):
    x = normal(2, *(9, 8, 4)[:space], channels)
    w = normal(*(3, 2, 3)[:space], channels // groups, 6)
    return x.astype(dtype), w.astype(dtype)


def call(conv, space, stride, padding, spread, dilation, groups, channels):
    del channels
    return partial(
        conv,
        window_strides=(stride,) * space,
        padding=padding,
        lhs_dilation=(spread,) * space,
        rhs_dilation=(dilation,) * space,
        dimension_numbers=LAYOUTS[space],
        feature_group_count=groups,
    )


def padded_by_hand(x, w, *, padding, lhs_dilation, **rest):
    """The stock convolution without its padding: on CPUs that is wrong where it also crops."""
    if not isinstance(padding, str):
        borders = [(*sides, d - 1) for sides, d in zip(padding, lhs_dilation, strict=True)]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *borders, (0, 0, 0)])
        padding = "VALID"
    return lax.conv_general_dilated(x, w, padding=padding, **rest)


def loss(conv, x, w):
    return (jnp.tanh(conv(x, w)) ** 2).sum()


def up_to_second_order(conv, x, w):
    """The value, both gradients, and both Hessian-vector products (forward over reverse)."""
    gradient = jax.grad(partial(loss, conv), (0, 1))
    return conv(x, w), gradient(x, w), jax.jvp(gradient, (x, w), (1 - x, 0.5 * w + 1))[1]


def assert_close(ours, theirs, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.complex128), np.asarray(b, np.complex128)
        np.testing.assert_allclose(a, b, atol=tolerance * (1 + np.abs(b).max(initial=0)))


def same(x, w):
    """A plain 3-wide convolution in two dimensions."""
    return conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=LAYOUTS[2])


def stock_same(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=LAYOUTS[2])


def primitives(f, *args):
    return {equation.primitive.name for equation in jax.make_jaxpr(f)(*args).eqns}


@pytest.mark.parametrize("few", [0, 6], ids=["direct", "patches"])
@pytest.mark.parametrize("case", GRID, ids=str)
def test_values_gradients_and_curvature_are_those_of_the_stock_convolution(case, few, monkeypatch):
    monkeypatch.setattr(convolution, "FEW_CHANNELS", few)
    monkeypatch.setattr(convolution, "SHORT", 0)
    x, w = operands(case[0], *case[5:])
    conv, stock = call(conv_general_dilated, *case), call(padded_by_hand, *case)
    assert "conv" in primitives(conv, x, w)
    ours, theirs = jax.jit(
        lambda x, w: (up_to_second_order(conv, x, w), up_to_second_order(stock, x, w))
    )(x, w)
    assert_close(ours, theirs)


def test_third_derivatives_agree():
    x, w = operands(2, 1, 6)

    def third(conv):
        gradient = jax.grad(partial(loss, conv), 1)
        bend = lambda w: jnp.vdot(jax.jvp(lambda w: gradient(x, w), (w,), (w,))[1], w)  # noqa: E731
        return jax.grad(bend)(w)

    ours, theirs = jax.jit(lambda: (third(same), third(stock_same)))()
    assert_close(ours, theirs)


@pytest.mark.parametrize("channels", [3, 6])
def test_bfloat16_under_strict_promotion(channels):
    x, w = operands(2, 1, channels, jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        gradients = [jax.grad(partial(loss, conv), (0, 1)) for conv in (same, stock_same)]
        ours, theirs = jax.jit(lambda x, w: [(g(x, w)) for g in gradients])(x, w)
    assert_close(ours, theirs, tolerance=2e-2)


@pytest.mark.parametrize("groups", [1, 2])
def test_every_batching_agrees(groups):
    x, w = operands(2, groups, 6)
    xs, ws = jnp.stack([x, 1 - x, 2 * x]), jnp.stack([w, w + 1, -w], axis=2)

    def batched(conv):
        gradient = jax.grad(partial(loss, conv), (0, 1))
        both = jax.vmap(gradient, (0, 2))
        return [
            jax.vmap(gradient, (0, None))(xs, w),
            jax.vmap(gradient, (None, 2))(x, ws),
            both(xs, ws),
            jax.vmap(both, (0, None))(jnp.stack([xs, -xs]), ws),
            jax.vmap(both, (None, 3))(xs, jnp.stack([ws, -ws], axis=3)),
            jax.vmap(both)(jnp.stack([xs, -xs]), jnp.stack([ws, 2 * ws])),
        ]

    case = (2, 2, "SAME", 1, 1, groups, 6)
    ours, theirs = jax.jit(
        lambda: [
            batched(call(conv, *case)) for conv in (conv_general_dilated, lax.conv_general_dilated)
        ]
    )()
    assert_close(ours, theirs)


def test_derivatives_of_a_batch_agree():
    """Transposing what was batched first: one operand shared, so its gradient is a sum."""
    x, w = operands(2, 1, 6)
    ws = jnp.stack([w, 2 * w])

    def total(conv):
        return lambda x, ws: jax.vmap(partial(loss, conv), (None, 0))(x, ws).sum()

    ours, theirs = jax.jit(
        lambda: [jax.grad(total(conv), (0, 1))(x, ws) for conv in (same, stock_same)]
    )()
    assert_close(ours, theirs)


@pytest.fixture
def no_patches(monkeypatch):
    """The form for many channels, on operands of few."""
    monkeypatch.setattr(convolution, "FEW_CHANNELS", 0)
    monkeypatch.setattr(convolution, "SHORT", 0)


@pytest.mark.usefixtures("no_patches")
@pytest.mark.parametrize("channels", [3, 6])
def test_a_gradient_in_a_loop_keeps_the_fast_layout(channels):
    """The point of it all: XLA:CPU is fast in one layout only, and leaves it in loops if let."""
    x, w = operands(2, 1, channels)
    gradient = jax.grad(partial(loss, same), (0, 1))

    def descend(carry, _):
        return jax.tree.map(lambda a, g: a - 0.01 * g, carry, gradient(*carry)), None

    scanned = jax.jit(lambda x, w: lax.scan(descend, (x, w), length=3)[0]).lower(x, w).compile()
    labels = set(re.findall(r"dim_labels=(\S+?)[,\s]", scanned.as_text() or ""))
    assert labels == {"b01f_01io->b01f"}
    alone = (x, w)
    for _ in range(3):
        alone = jax.jit(descend)(alone, None)[0]
    assert_close(scanned(x, w), alone)


@pytest.mark.parametrize(
    "layout", [None, ("NCHW", "OIHW", "NHWC"), ("CHWN", "IHWO", "HWNC")], ids=str
)
def test_any_layout(layout):
    sizes = {"N": 2, "C": 6, "I": 6, "O": 5}
    image, kernel = layout[:2] if layout else ("NCHW", "OIHW")
    x = normal(*(sizes.get(axis, 7) for axis in image))
    w = normal(*(sizes.get(axis, 3) for axis in kernel))
    ours, stock = (
        partial(conv, window_strides=(2, 1), padding="SAME", dimension_numbers=layout)
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert "conv" in primitives(ours, x, w)
    assert_close(ours(x, w), stock(x, w))


@pytest.mark.parametrize(
    "change",
    [
        {"batch_group_count": 2},
        {"preferred_element_type": jnp.float32, "dtype": jnp.bfloat16},
        {"dtype": jnp.int32},
        {"dtype": jnp.complex64},
        {"batch": 0},
    ],
    ids=str,
)
def test_what_is_not_covered_goes_to_the_stock_function(change):
    change = dict(change)
    dtype, batch = change.pop("dtype", jnp.float32), change.pop("batch", 4)
    x, w = jnp.ones((batch, 5, 5, 6), dtype), jnp.ones((3, 3, 6, 4), dtype)
    ours = partial(conv_general_dilated, window_strides=(1, 1), padding="SAME", **change)
    stock = partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", **change)
    ours, stock = (partial(f, dimension_numbers=LAYOUTS[2]) for f in (ours, stock))
    assert primitives(ours, x, w) == {"conv_general_dilated"}
    assert_close(ours(x, w), stock(x, w))


@pytest.mark.parametrize(
    ("x_shape", "arguments"),
    [
        ((2, 5, 5, 7), {}),
        ((2, 5, 6), {}),
        ((2, 5, 5, 6), {"lhs_dilation": (2, 2)}),
        ((2, 5, 5, 6), {"padding": "AROUND"}),
        ((2, 5, 5, 6), {"window_strides": (1,)}),
        ((2, 5, 5, 6), {"feature_group_count": 4}),
    ],
    ids=str,
)
def test_bad_arguments_raise_what_the_stock_function_raises(x_shape, arguments):
    arguments = {"window_strides": (1, 1), "padding": "SAME"} | arguments
    x, w = jnp.ones(x_shape), jnp.ones((3, 3, 6, 4))
    messages = []
    for conv in (lax.conv_general_dilated, conv_general_dilated):
        with pytest.raises((ValueError, TypeError, RuntimeError)) as error:
            conv(x, w, dimension_numbers=LAYOUTS[2], **arguments)
        messages.append((error.type, str(error.value)))
    assert messages[0] == messages[1]


def lowered(platform):
    """What members' gradients become on a platform, as text, before XLA sees it."""
    x, w = operands(2, 1, 6)
    members = jax.vmap(jax.grad(partial(loss, same), (0, 1)))
    traced = jax.jit(members).trace(jnp.stack([x] * 3), jnp.stack([w] * 3))
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.usefixtures("no_patches")
def test_members_go_one_after_the_other_on_cpus():
    text = lowered("cpu")
    assert text.count("stablehlo.while") == 3
    assert set(re.findall(r"feature_group_count = (\d+)", text)) == {"1"}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_members_go_at_once_elsewhere(platform):
    text = lowered(platform)
    assert "stablehlo.while" not in text and "optimization_barrier" not in text
    assert set(re.findall(r"(?:feature|batch)_group_count = (\d+)", text)) == {"1", "3"}


@pytest.mark.parametrize("case", [GRID[2], GRID[7], GRID[10]], ids=str)
def test_the_forms_for_other_platforms_compute_the_same(case):
    x, w = operands(case[0], *case[5:])
    conv = call(conv_general_dilated, *case)
    (equation,) = (e for e in jax.make_jaxpr(conv)(x, w).eqns if e.primitive is convolution.conv_p)
    geometry = equation.params["geometry"]
    rules = [
        (convolution.conv_p, convolution._stock_conv, 0, 1),
        (convolution.input_gradient_p, convolution._stock_input_gradient, 2, 1),
        (convolution.kernel_gradient_p, convolution._stock_kernel_gradient, 0, 2),
    ]

    def both(x, w):
        members = [jnp.stack([a, 1 - a]) for a in (x, w, jnp.cos(conv(x, w)))]
        pairs = [(members[i], members[j]) for _, _, i, j in rules]
        ours = [
            rule[0].bind(*pair, geometry=geometry) for rule, pair in zip(rules, pairs, strict=True)
        ]
        stock = [jax.vmap(partial(rule[1], geometry=geometry)) for rule in rules]
        return ours, [f(*pair) for f, pair in zip(stock, pairs, strict=True)]

    assert_close(*jax.jit(both)(x, w))


def test_members_spread_over_devices():
    """Under `shard_map` with its checks on: the kernel shared, and a kernel per member."""
    mesh = jax.make_mesh((2,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))
    members = P("m")
    x, w = operands(2, 1, 6)
    xs, ws = jnp.stack([x, 1 - x, 2 * x, -x]), jnp.stack([w, w + 1, -w, 2 * w])
    shared = jax.vmap(jax.grad(partial(loss, same), (0, 1)), (0, None))
    own = jax.vmap(jax.grad(partial(loss, same), (0, 1)))

    def total(xs, w):
        return lax.psum(jax.vmap(partial(loss, same), (0, None))(xs, w).sum(), "m")

    def spread(f, out, *specs):
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out)

    ours = jax.jit(
        lambda: [
            spread(
                lambda xs, w: shared(xs, lax.pcast(w, "m", to="varying")), members, members, P()
            )(xs, w),
            spread(own, members, members, members)(xs, ws),
            jax.grad(spread(total, P(), members, P()), (0, 1))(xs, w),
        ]
    )()
    whole = jax.grad(lambda xs, w: jax.vmap(partial(loss, same), (0, None))(xs, w).sum(), (0, 1))
    assert_close(ours, jax.jit(lambda: [shared(xs, w), own(xs, ws), whole(xs, w)])())


def test_nnx_layers_take_it():
    make = partial(nnx.Conv, 3, 4, (3, 3), kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
    layer, stock = make(conv_general_dilated=conv_general_dilated), make()
    x = normal(2, 5, 5, 3)
    assert_close(layer(x), stock(x))
