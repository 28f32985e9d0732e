"""Layouts: the axes of every kernel of the common frameworks, alone and in stacks."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import lth_jax as lth
from lth_jax import layouts, models, trees
from lth_jax import structure as st
from lth_jax.layouts import DENSE, Layout, conv
from lth_jax.pruning import granularity, supermask
from tests.thinning import thinned

KEY = jax.random.key(0)
X = jnp.ones((2, 12))
IMAGE = jnp.ones((2, 6, 6, 4))
QUERY, OUT = Layout((0,), (1, 2), heads=(1,)), Layout((0, 1), (2,), heads=(0,))
ATTENTION = {"query": QUERY, "key": QUERY, "value": QUERY, "out": OUT}

LINEN = {
    "dense": (nn.Dense(5), (X,), {"kernel": DENSE}),
    "general": (
        nn.DenseGeneral((3, 5), axis=-1),
        (X,),
        {"kernel": Layout((0,), (1, 2), heads=(1,))},
    ),
    "einsum": (nn.Einsum((12, 3, 5), "...d,dhk->...hk"), (X,), {"kernel": Layout((0,), (1, 2))}),
    "embed": (nn.Embed(11, 5), (jnp.zeros((2,), int),), {"embedding": DENSE}),
    "conv1": (nn.Conv(5, (3,)), (jnp.ones((2, 6, 4)),), {"kernel": conv(1)}),
    "conv2": (nn.Conv(5, (3, 2)), (IMAGE,), {"kernel": conv(2)}),
    "depthwise": (nn.Conv(8, (3, 3), feature_group_count=4), (IMAGE,), {"kernel": conv(2)}),
    "transpose": (nn.ConvTranspose(5, (3, 2)), (IMAGE,), {"kernel": conv(2)}),
    "transpose_kernel": (
        nn.ConvTranspose(5, (3, 2), transpose_kernel=True),
        (IMAGE,),
        {"kernel": Layout((3,), (2,), (0, 1))},
    ),
    "attention": (
        nn.MultiHeadDotProductAttention(num_heads=2),
        (jnp.ones((2, 3, 12)),),
        {f"{name}/kernel": layout for name, layout in ATTENTION.items()},
    ),
}
NNX = {
    "linear": (lambda rngs: nnx.Linear(12, 5, rngs=rngs), {"kernel": DENSE}),
    "general": (
        lambda rngs: nnx.LinearGeneral(12, (3, 5), rngs=rngs),
        {"kernel": Layout((0,), (1, 2), heads=(1,))},
    ),
    "einsum": (
        lambda rngs: nnx.Einsum("...d,dhk->...hk", (12, 3, 5), rngs=rngs),
        {"kernel": Layout((0,), (1, 2))},
    ),
    "embed": (lambda rngs: nnx.Embed(11, 5, rngs=rngs), {"embedding": DENSE}),
    "conv": (lambda rngs: nnx.Conv(4, 5, (3, 2), rngs=rngs), {"kernel": conv(2)}),
    "transpose": (lambda rngs: nnx.ConvTranspose(4, 5, (3, 2), rngs=rngs), {"kernel": conv(2)}),
    "attention": (
        lambda rngs: nnx.MultiHeadAttention(2, 12, decode=False, rngs=rngs),
        {f"{name}/kernel": layout for name, layout in ATTENTION.items()},
    ),
}
BACKWARD = Layout((1,), (0,))
EQUINOX = {
    "linear": (lambda key: eqx.nn.Linear(12, 5, key=key), {"weight": BACKWARD}),
    "conv": (
        lambda key: eqx.nn.Conv2d(4, 6, (3, 2), groups=2, key=key),
        {"weight": Layout((1,), (0,), (2, 3))},
    ),
    "transpose": (
        lambda key: eqx.nn.ConvTranspose1d(4, 6, 3, key=key),
        {"weight": Layout((1,), (0,), (2,))},
    ),
    "embedding": (lambda key: eqx.nn.Embedding(7, 5, key=key), {"weight": DENSE}),
    "lstm": (
        lambda key: eqx.nn.LSTMCell(3, 5, key=key),
        {"weight_ih": BACKWARD, "weight_hh": BACKWARD},
    ),
    "gru": (
        lambda key: eqx.nn.GRUCell(3, 5, key=key),
        {"weight_ih": BACKWARD, "weight_hh": BACKWARD},
    ),
    "attention": (
        lambda key: eqx.nn.MultiheadAttention(2, 12, key=key),
        {f"{name}_proj/weight": BACKWARD for name in ("query", "key", "value", "output")},
    ),
}


def stacked(expected):
    return {name: layout.with_stack(0) for name, layout in expected.items()}


@pytest.mark.parametrize("name", LINEN)
def test_linen_layers(name):
    module, args, expected = LINEN[name]
    assert layouts.of_linen(module, *args) == expected


@pytest.mark.parametrize("name", LINEN)
def test_linen_layers_in_a_stack(name):
    module, args, expected = LINEN[name]
    options = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    kind = nn.vmap(type(module), in_axes=None, axis_size=7, **options)
    fields = set(module.__dataclass_fields__) - {"parent", "name"}
    many = kind(**{field: getattr(module, field) for field in fields})
    assert layouts.of_linen(many, *args) == stacked(expected)


@pytest.mark.parametrize("name", NNX)
def test_nnx_layers_alone_and_stacked(name):
    make, expected = NNX[name]
    assert layouts.of_nnx(make(nnx.Rngs(0))) == expected
    assert layouts.of_nnx(make(nnx.Rngs(0)), "an example", train=False) == expected
    many = nnx.vmap(lambda key: make(nnx.Rngs(key)))(jax.random.split(KEY, 7))
    assert layouts.of_nnx(many) == stacked(expected)


@pytest.mark.parametrize("name", EQUINOX)
def test_equinox_layers_alone_and_stacked(name):
    make, expected = EQUINOX[name]
    assert layouts.of_equinox(make(KEY)) == expected
    assert layouts.of_equinox(make(KEY), "an example", key=None) == expected
    many = eqx.filter_vmap(make)(jax.random.split(KEY, 13))
    assert layouts.of_equinox(many) == stacked(expected)


def test_haiku_layers_alone_and_stacked():

    def network(x):
        block = hk.experimental.layer_stack(7)(lambda h: hk.Linear(12, name="inner")(h))
        h = hk.Linear(12)(block(x))
        image = hk.Conv2D(5, (3, 2))(h.reshape(2, 2, 2, 3))
        return hk.Conv2DTranspose(6, 3)(image)

    found = layouts.of_haiku(hk.transform(network).init, X)
    by_end = {name.split("/")[-2]: layout for name, layout in found.items()}
    assert by_end["inner"] == DENSE.with_stack(0)
    assert by_end["linear"] == DENSE
    assert by_end["conv2_d"] == conv(2)
    assert by_end["conv2_d_transpose"] == Layout((3,), (2,), (0, 1))


def test_a_stack_that_could_lie_along_several_axes_has_no_layout():
    many = nnx.vmap(lambda key: nnx.Linear(7, 5, rngs=nnx.Rngs(key)))(jax.random.split(KEY, 7))
    assert layouts.of_nnx(many) == {}


def test_a_layer_type_of_ones_own_can_be_registered(monkeypatch):
    monkeypatch.setattr(layouts.modules, "_TYPES", {})

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x @ self.param("table", nn.initializers.zeros, (5, x.shape[-1])).T

    assert layouts.of_linen(Own(), X) == {}
    layouts.register(Own, lambda layer: {"table": (BACKWARD, ())})
    assert layouts.of_linen(Own(), X) == {"table": BACKWARD}


@pytest.mark.parametrize(
    ("name", "shape", "known"),
    [
        ("kernel", (3, 4), True),
        ("recurrent_kernel_3", (3, 4), True),
        ("w", (3, 4), True),
        ("embedding", (3, 4), True),
        ("weight", (3, 4), False),  # Equinox and PyTorch: (outputs, inputs)
        ("table", (3, 4), False),
        ("kernel", (3, 4, 5), False),  # a convolution, attention, or a stack
        ("kernel", (3, 3, 4, 5), False),
    ],
)
def test_names_resolve_only_what_they_leave_no_doubt_about(name, shape, known):
    assert bool(layouts.resolve({"layer": {name: jnp.zeros(shape)}})) == known


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: layouts.resolve(p, {"b": DENSE}), "names the leaf 'b', but the leaves are"),
        (lambda p: layouts.resolve(p, {"w": conv(2)}), r"has 4 axes, but the leaf has shape \(2,"),
        (lambda p: layouts.by_name(p, {"x*": DENSE}), "'x\\*', which matches none of the leaves"),
        (lambda p: Layout((0,), (2,)), "every axis from 0 to 1 once"),
        (lambda p: Layout((0,), (1,), heads=(3,)), "`heads` is"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call({"w": jnp.zeros((2, 3))})


LAYOUTS = [DENSE, BACKWARD, conv(2), QUERY, OUT, Layout((3,), (1,), (2,), stacked=(0,))]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_matrices_and_layers_go_there_and_back(layout):
    shape = tuple(range(2, 2 + len(layout.order)))
    leaf = jnp.arange(np.prod(shape)).reshape(shape)
    matrix = layout.to_matrix(leaf)
    assert matrix.shape == layout.matrix_shape(shape)
    np.testing.assert_array_equal(layout.from_matrix(matrix, shape), leaf)
    layers = layouts.to_layers(leaf, layout)
    np.testing.assert_array_equal(layouts.from_layers(layers, layout, shape), leaf)


# What reads layouts: the same layer gives the same choice in every layout.

WIDTHS = {"inputs": 8, "outputs": 12, "window": 3, "layers": 5}
SCORES = jax.random.uniform(KEY, (5, 3, 8, 12))  # (layers, window, inputs, outputs)
TWINS = {
    "flax": (Layout((2,), (3,), (1,), stacked=(0,)), (5, 3, 8, 12)),
    "equinox": (Layout((2,), (1,), (3,), stacked=(0,)), (5, 12, 8, 3)),
    "stacked last": (Layout((1,), (2,), (0,), stacked=(3,)), (3, 8, 12, 5)),
    "query": (Layout((2,), (3, 4), (1,), stacked=(0,), heads=(3,)), (5, 3, 8, 2, 6)),
    "out": (Layout((2, 3), (4,), (1,), stacked=(0,), heads=(2,)), (5, 3, 2, 4, 12)),
}
GRANULARITIES = {
    "weights": granularity.weights,
    "rows": granularity.rows(),
    "columns": granularity.columns(),
    "kernels": granularity.kernels(),
    "blocks": granularity.blocks(2, 4),
    "n_m": granularity.n_m(2, 4),
    "n_m outputs": granularity.n_m(1, 3, "outputs"),
}
SCOPES = {
    "globally": lth.globally(),
    "minimum": lth.globally(minimum=10),
    "layerwise": lth.layerwise(),
    "erk": lth.erk(),
}


def pruned(layout, shape, grain, scope):
    params = {"a": layout.from_matrix(SCORES, shape), "b": layout.from_matrix(SCORES + 1, shape)}
    known, prunable = {"a": layout, "b": layout}, {"a": True, "b": True}
    count = SCOPES[scope].counts(params, 0.3, prunable=prunable, layouts=known)
    pruner = lth.prune(lth.magnitude(), SCOPES[scope], GRANULARITIES[grain])
    mask = jax.jit(lambda p, c: pruner(p, lth.ones_like(p), c, prunable=prunable, layouts=known))(
        params, count
    )
    return {name: np.asarray(layout.to_matrix(leaf)) for name, leaf in mask.items()}


COMBINATIONS = [(grain, "layerwise") for grain in GRANULARITIES]
COMBINATIONS += [("weights", scope) for scope in ("globally", "minimum", "erk")]
COMBINATIONS += [("rows", "erk"), ("columns", "globally")]


@pytest.mark.parametrize(("grain", "scope"), thinned(COMBINATIONS, 3, slow=3))
@pytest.mark.slow
def test_the_choice_does_not_depend_on_the_order_of_axes(grain, scope):
    expected = pruned(*TWINS["flax"], grain, scope)
    for name in TWINS:
        found = pruned(*TWINS[name], grain, scope)
        for leaf in expected:
            np.testing.assert_array_equal(found[leaf], expected[leaf], err_msg=f"{name} {leaf}")


def test_every_layer_of_a_stack_has_its_own_count_and_choice():
    mask = pruned(*TWINS["stacked last"], "columns", "layerwise")["a"]
    assert {layer.any((0, 1)).sum() for layer in mask} == {4}  # 30 % of 12 outputs, upwards
    assert len({tuple(layer.any((0, 1))) for layer in mask}) == 5


def test_heads_go_whole():
    layout = Layout((0,), (1, 2), heads=(1,))
    params = {"q": jnp.ones((6, 4, 3)) * jnp.array([1.0, 4.0, 2.0, 3.0])[:, None]}
    pruner = lth.prune(lth.magnitude(), lth.globally(), granularity.heads())
    known = {"q": layout}
    mask = pruner(params, lth.ones_like(params), 36, prunable={"q": True}, layouts=known)
    assert np.asarray(mask["q"]).all((0, 2)).tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match="first input or output axes are heads, but 'w' has"):
        granularity.heads().to_units(
            {"w": jnp.ones((2, 2))}, {"w": jnp.ones((2, 2), bool)}, prunable={"w": True}
        )


@pytest.mark.parametrize("grain", [g for g in GRANULARITIES if g != "weights"])
@pytest.mark.parametrize("shape", [(4, 4), (8, 2, 4)])
def test_a_kernel_whose_axes_are_not_known_is_refused_by_name(grain, shape):
    params = {"weight": jnp.ones(shape)}
    with pytest.raises(ValueError, match="layout of 'weight', of shape"):
        GRANULARITIES[grain].to_units(params, lth.ones_like(params), prunable={"weight": True})


@pytest.mark.parametrize(
    "call",
    [
        lambda p, pz: lth.erk().counts(p, 0.5, prunable=pz),
        lambda p, pz: supermask.init_scores(KEY, p, prunable=pz),
        lambda p, pz: st.regroup(lth.ones_like(p), pz),
        lambda p, pz: st.rescale(p, lth.ones_like(p), pz, st.fan_in),
    ],
)
def test_what_needs_the_fan_refuses_unknown_axes(call):
    params = {"kernel": jnp.ones((8, 2, 4))}
    with pytest.raises(ValueError, match="layout of 'kernel'"):
        call(params, {"kernel": True})


def test_erk_counts_a_convolution_by_its_channels_and_window():
    """Evci et al. (2020): the density goes with (inputs + outputs + window) / weights."""
    params = {"conv": jnp.zeros((3, 3, 40, 80)), "q": jnp.zeros((64, 4, 16))}
    known = {"conv": conv(2), "q": Layout((0,), (1, 2), heads=(1,))}
    prunable = {"conv": True, "q": True}
    count = lth.erk().counts(params, 0.02, prunable=prunable, layouts=known)
    ratio = (3 + 3 + 40 + 80) / (64 + 64)
    assert int(count["conv"]) / int(count["q"]) == pytest.approx(ratio, rel=0.01)


def test_statistics_and_controls_see_the_layers_of_a_stack():
    layout, _ = TWINS["stacked last"]
    known, prunable = {"a": layout}, {"a": True}
    full = jnp.ones((3, 8, 12), bool)
    mask = {"a": jnp.stack([full, full & (jnp.arange(12) < 3)] + [~full] * 3, axis=-1)}
    density = lth.density_per_leaf(mask, prunable, layouts=known)["a"]
    assert density.tolist() == [1.0, 0.25, 0.0, 0.0, 0.0]
    assert lth.collapsed(mask, prunable, layouts=known) == ["a[2]", "a[3]", "a[4]"]
    shuffled = lth.shuffle(KEY, mask, prunable=prunable, layouts=known)
    again = lth.density_per_leaf(shuffled, prunable, layouts=known)["a"]
    assert again.tolist() == density.tolist()
    assert (shuffled["a"] != mask["a"]).any()
    soft = supermask.rescale({"a": mask["a"].astype(jnp.float32)}, layouts=known)["a"]
    assert [float(soft[..., i].max()) for i in range(3)] == [1.0, 4.0, 0.0]


@pytest.mark.slow
def test_edge_popup_sets_and_rigl_choose_in_each_layer():
    layout, scope, shape = DENSE.with_stack(0), lth.layerwise(), (3, 4, 5)
    known, prunable = {"w": layout}, {"w": True}
    params = {"w": jax.random.normal(KEY, shape) * jnp.array([1.0, 10.0, 100.0])[:, None, None]}
    count = scope.counts(params, 0.25, prunable=prunable, layouts=known)
    options = {"prunable": prunable, "layouts": known}
    soft = supermask.edge_popup(params, count, scope=scope, **options)
    assert soft["w"].sum((1, 2)).tolist() == [5, 5, 5]

    start = lambda params: supermask.harden(soft)  # noqa: E731
    events = lth.transforms.Events(every=1)
    for tx in (
        lth.sparse_evolution(optax.sgd(0.1), start, events, key=KEY, fraction=0.4, **options),
        lth.rigl(optax.sgd(0.1), start, lth.transforms.Events(1, end=9), fraction=0.4, **options),
    ):
        state = tx.init(params)
        _, state = jax.jit(tx.update)({"w": params["w"][::-1]}, state, params)
        mask = optax.tree.get(state, "mask")["w"]
        assert mask.sum((1, 2)).tolist() == [5, 5, 5]
        assert (mask != (soft["w"] > 0)).any()
        assert int(optax.tree.get(state, "undecided")) == 0


def test_lamp_ranks_each_layer_of_a_stack_by_itself():
    layout = DENSE.with_stack(0)
    params = {"w": jax.random.normal(KEY, (3, 4, 5)) * jnp.array([1.0, 10.0, 100.0])[:, None, None]}
    found = lth.criteria.lamp(layouts={"w": layout})(params, lth.ones_like(params))["w"]
    for layer, scores in zip(params["w"], found, strict=True):
        alone = lth.criteria.lamp()({"w": layer}, {"w": jnp.ones((4, 5), bool)})["w"]
        np.testing.assert_allclose(scores, alone, rtol=1e-6)


def test_all_leaves_of_a_linen_transformer_with_a_scanned_stack():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
            return x + nn.Dense(12)(nn.gelu(nn.Dense(24)(nn.RMSNorm()(x)))), None

    stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=5)()
    x = jnp.ones((2, 3, 12))
    found = layouts.of_linen(stack, x, None)
    params = jax.eval_shape(stack.init, KEY, x, None)["params"]
    kernels = {name for name in trees.names(params) if name.endswith("kernel")}
    assert set(found) == kernels
    assert all(layout.stacked == (0,) for layout in found.values())
    prunable = trees.to_named(lth.prunable_leaves(params))
    assert {name for name, may in prunable.items() if may} == kernels


ADAPTED = {
    "linen": (lambda: models.from_linen(nn.Dense(5)), {"kernel": DENSE}),
    "nnx": (lambda: models.from_nnx(lambda rngs: nnx.Linear(12, 5, rngs=rngs)), {"kernel": DENSE}),
    "equinox": (
        lambda: models.from_equinox(lambda key: eqx.nn.Linear(12, 5, key=key)),
        {"weight": BACKWARD},
    ),
    "haiku": (
        lambda: models.from_haiku(hk.transform(lambda x: hk.Linear(5)(x))),
        {"linear/w": DENSE},
    ),
}


@pytest.mark.parametrize("name", ADAPTED)
def test_adapted_models_give_the_layouts_of_their_kernels(name):
    make, expected = ADAPTED[name]
    assert make().layouts(X) == expected
