"""Compact functions under meshes: what runs on one runs on it without some units."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from lth_jax import structure as st
from tests.structure.conftest import QUICK

EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto
BATCH, FEATURES, UNITS = 4, 6, 8


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,))


def embedded(p, x):
    """`.at[].get(out_sharding=...)` is a region of automatic axes."""
    ids = jnp.argsort(x[:, :3], axis=1)
    rows = p["w"].at[ids].get(out_sharding=P("d", None, None))
    return jnp.einsum("btu,uo->bo", jnp.tanh(rows), p["v"])


def dense(p, x):
    return jax.nn.relu(x @ p["w"]) @ p["v"]


def widened(p, x):
    """Constants, broadcasts and reshapes that hold the width."""
    h = (x @ p["w"]).reshape(len(x), 1, UNITS) * jnp.arange(1.0, UNITS + 1)
    h = h + jnp.broadcast_to(jnp.ones(3)[:, None], (3, UNITS)) * jnp.zeros((len(x), 3, UNITS))
    return jnp.tanh(h).mean(1) @ p["v"]


def heads(p, x):
    h = jnp.tanh(x @ p["w"]).reshape(len(x), UNITS // 2, 2)
    h = h * lax.rsqrt(1 + (h * h).sum(-1, keepdims=True))
    return h.reshape(len(x), UNITS) @ p["v"]


def looped(p, x):
    h = lax.scan(lambda h, _: (jnp.tanh(h) * 2, None), x @ p["w"], None, length=2)[0]
    h = lax.cond(x.sum() > 0, jnp.sin, jnp.cos, h)
    return jax.checkpoint(jnp.tanh)(h) @ p["v"]


def own_rules(p, x):
    return doubled(jax.nn.silu(x @ p["w"])) @ p["v"]


def resharded(p, x):
    h = jnp.tanh(jnp.matmul(x, p["w"], out_sharding=P("d", None)))
    return jax.sharding.reshard(h, P(None, None)) @ p["v"]


def automatic(p, x):
    @functools.partial(jax.sharding.auto_axes, out_sharding=P("d", None))
    def inner(x, w):
        h = doubled(jax.nn.relu(x @ w))
        return lax.with_sharding_constraint(h, P("d", None))[:, ::-1]

    return inner(x, p["w"]) @ p["v"]


def shifted(p, x):
    """Pieces of the axis: `slice`, `concatenate`, `pad`, `gather` of known places."""
    h = jnp.tanh(x @ p["w"])
    h = jnp.concatenate([h[:, 4:], h[:, :4]], 1)
    return jnp.pad(h, ((0, 0), (0, 2)))[:, :UNITS] @ p["v"]


EVERYWHERE = [
    embedded, widened, own_rules, automatic,
    *(pytest.param(f, marks=pytest.mark.slow) for f in (dense, heads, looped, resharded, shifted)),
]  # fmt: skip


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype("float32")  # noqa: E731
    return {"w": draw(FEATURES, UNITS), "v": draw(UNITS, 2)}, draw(BATCH, FEATURES)


def every_second(n):
    return np.arange(n) % 2 == 0


def check(mesh, apply, params, data, choose=every_second, **specs):
    """Outputs and gradients of the masked and the compact network on a mesh."""

    def place(name, a):
        return jax.device_put(a, jax.NamedSharding(mesh, specs.get(name, P())))

    params, x = {name: place(name, a) for name, a in params.items()}, place("x", data)
    found = st.find_groups(apply, params, x)
    assert found.groups and found.unknown == ()
    units = {g.name: choose(g.units) for g in found.groups}
    mask = st.expand(found, units)
    masked = {k: place(k, np.where(mask[k], p, 0)) for k, p in params.items()}
    small, compact = st.compact(found, params, units)

    def results(f, p):
        def loss(p, x):
            out = f(p, x)
            return jnp.sum(out**2), out

        step = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)
        (_, out), grads = step(p, x)
        return np.asarray(out), jax.tree.map(np.asarray, grads)

    (out, grads), (small_out, small_grads) = results(apply, masked), results(compact, small)
    np.testing.assert_allclose(out, small_out, rtol=1e-5, atol=1e-5)
    for name, grad in st.take(found, grads, units).items():
        np.testing.assert_allclose(grad, small_grads[name], rtol=1e-5, atol=2e-5)
    return found, small, compact


@pytest.fixture
def on(request):
    kind, sizes = request.param
    mesh = jax.make_mesh(sizes, ("d", "t"), (kind, kind), devices=jax.devices()[: np.prod(sizes)])
    with jax.set_mesh(mesh):
        yield mesh


one, four, auto = (EXPLICIT, (1, 1)), (EXPLICIT, (2, 2)), (AUTO, (2, 2))
on_four = pytest.mark.parametrize("on", [four], indirect=True, ids=["four"])


@on_four
@pytest.mark.parametrize("apply", EVERYWHERE, ids=lambda f: f.__name__)
def test_explicit_meshes_with_a_sharded_batch(apply, on, arrays):
    check(on, apply, *arrays, x=P("d"))


@pytest.mark.parametrize("on", [one], indirect=True, ids=["one"])
def test_an_explicit_mesh_of_one_device(on, arrays):
    _, small, compact = check(on, embedded, *arrays)
    assert compact(small, arrays[1]).shape == (BATCH, 2)  # without `jit`


def parallel(p, x):
    """Sharded units: the product over them states the sharding of its result."""
    h = jax.nn.relu(x @ p["w"]) + jnp.arange(float(UNITS))
    return jnp.matmul(h, p["v"], out_sharding=P("d", None))


@on_four
@pytest.mark.parametrize("kept", [4, 3])
def test_sharded_units_stay_sharded_where_the_mesh_divides_them(kept, on, arrays):
    choose = lambda n: np.arange(n) < kept  # noqa: E731
    _, small, _ = check(on, parallel, *arrays, choose=choose, x=P("d"), w=P(None, "t"), v=P("t"))
    assert jax.typeof(small["w"]).sharding.spec == P(None, "t" if kept == 4 else None)


@on_four
def test_other_shapes_and_shardings(on, arrays):
    _, small, compact = check(on, heads, *arrays)
    x = np.concatenate([arrays[1]] * 2)
    sharded = jax.device_put(x, jax.NamedSharding(on, P("d")))
    assert jax.typeof(jax.jit(compact)(small, sharded)).sharding.spec == P("d", None)
    np.testing.assert_allclose(compact(small, sharded), compact(small, x), atol=1e-6)


def test_a_function_analysed_without_a_mesh_runs_on_one(arrays):
    params, x = arrays
    found = st.find_groups(heads, params, x)
    small, compact = st.compact(
        found, params, {g.name: every_second(g.units) for g in found.groups}
    )
    expected = jax.jit(compact)(small, x)
    mesh = jax.make_mesh((2, 2), ("d", "t"), (EXPLICIT,) * 2, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, jax.NamedSharding(mesh, P("d")))
        out = jax.jit(compact)(jax.device_put(small, jax.NamedSharding(mesh, P())), sharded)
    assert jax.typeof(out).sharding.spec == P("d", None)
    np.testing.assert_allclose(out, expected, atol=1e-6)


def tensor_parallel(p, x):
    """Units over the devices of one axis, the batch over those of the other."""

    def body(x, w, v):
        return lax.psum(jax.nn.relu(doubled(x @ w)) @ v, "t")

    specs = (P("d", None), P(None, "t"), P("t", None))
    return jax.shard_map(body, in_specs=specs, out_specs=P("d", None))(x, p["w"], p["v"])


def gathered(p, x):
    """Sequence parallelism: features are gathered for the product and scattered again."""

    def body(x, w, v):
        h = lax.all_gather(jnp.tanh(x @ w), "t", axis=1, tiled=True)
        h = lax.all_to_all(lax.psum_scatter(h, "t", scatter_dimension=1, tiled=True), "t", 0, 1,
                           tiled=True)  # fmt: skip
        h = lax.all_to_all(h, "t", 1, 0, tiled=True)
        return lax.psum(lax.scan(lambda h, _: (jnp.sin(h), None), h, length=2)[0] @ v, "t")

    specs = (P("d", None), P(None, "t"), P("t", None))
    return jax.shard_map(body, in_specs=specs, out_specs=P("d", None))(x, p["w"], p["v"])


@pytest.mark.parametrize(
    ("on", "apply"),
    [
        (four, tensor_parallel),
        (auto, gathered),
        pytest.param(auto, tensor_parallel, marks=pytest.mark.slow),
        pytest.param(four, gathered, marks=pytest.mark.slow),
    ],
    indirect=["on"],
    ids=["explicit", "auto, gathered", "auto", "explicit, gathered"],
)
def test_every_device_loses_the_same_units_of_its_part(apply, on, arrays):
    found, small, _ = check(on, apply, *arrays, x=P("d"), w=P(None, "t"), v=P("t"))
    (group,) = found.groups
    assert group.units == UNITS // 2
    np.testing.assert_array_equal(group.slots[0].indices[0], [0, UNITS // 2])
    assert small["w"].shape == (FEATURES, UNITS // 2)


@pytest.mark.parametrize("on", [auto], indirect=True, ids=["auto"])
def test_constraints_on_automatic_meshes_give_way_where_they_no_longer_divide(on, arrays):
    def apply(p, x):
        h = lax.with_sharding_constraint(jnp.tanh(x @ p["w"]), P("d", "t"))
        return h @ p["v"]

    check(on, apply, *arrays, choose=lambda n: np.arange(n) < 3)


def test_collectives_over_a_mapped_axis(arrays):
    """`vmap` with a name: the collectives are sums, maxima and gathers of a batch axis."""
    params, x = arrays

    def apply(p, x):
        def member(x):
            h = jnp.tanh(x @ p["w"])
            h = h - lax.pmean(h, "members") * lax.pmax(h, "members")
            return lax.all_gather(h, "members").sum(0) @ p["v"]

        return jax.vmap(member, axis_name="members")(x)

    found = st.find_groups(apply, params, x)
    (group,) = found.groups
    assert found.unknown == () and group.exact and group.units == UNITS
    units = {group.name: every_second(UNITS)}
    small, compact = st.compact(found, params, units)
    masked = jax.tree.map(np.multiply, st.expand(found, units), params)
    np.testing.assert_allclose(compact(small, x), apply(masked, x), atol=1e-5)
