"""What every criterion, granularity and scope promises, for anybody's pytree.

Containers differ only in how a tree is flattened, so a program traced for one must be the program
traced for another, to the letter: that is checked without compiling anything. What the programs do
is then checked on plain lists, with one compiled program per criterion and one per selection.
"""

import functools
import inspect
import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from lth_jax import trees
from lth_jax.layouts import DENSE
from lth_jax.pruning import criteria, granularity, masks, scopes
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scores import is_bad
from lth_jax.types import Batch

WIDTHS = (4, 8, 4)
DRAW = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(DRAW.normal(size=shape), jnp.float32)


def leaves():
    """Bias and kernel, twice: the order in which every container below flattens."""
    return [array(*s) for n, m in itertools.pairwise(WIDTHS) for s in ((m,), (n, m))]


PARAMS, INITIAL, ACCUMULATED = leaves(), leaves(), leaves()
BATCHES = [Batch(array(n, WIDTHS[0]), array(n, WIDTHS[-1])) for n in (3, 2)]
HELPERS = {"CRITERIA", "Criterion", "MovementState", "linen_inputs", "nnx_inputs"}
HELPERS |= {"squared_inputs", "track_movement"}


def forward(params, x):
    b0, k0, b1, k1 = jax.tree.leaves(params)
    return jax.nn.relu(x.astype(k0.dtype) @ k0 + b0) @ k1 + b1


def loss(params, batch):
    error = forward(params, batch.x) - batch.y.astype(jax.tree.leaves(params)[0].dtype)
    return jnp.mean(error**2)


def inputs(params, batch):
    b0, k0, _, k1 = jax.tree.leaves(params)
    x = batch.x.astype(k0.dtype)
    hidden = jax.nn.relu(x @ k0 + b0)
    names = trees.names(params)
    sums = [
        jnp.broadcast_to(jnp.sum(a**2, 0)[:, None], k.shape) for a, k in ((x, k0), (hidden, k1))
    ]
    return {names[1]: sums[0], names[3]: sums[1]}


def made(name):
    """A criterion of the registry, from what it takes."""
    offered = {"loss": loss, "forward": forward, "inputs": inputs}
    offered["example"] = jnp.zeros((1, WIDTHS[0]))
    offered |= {"fisher": {"chunk": 2}, "obd": {"probes": 2}}.get(name, {})
    build = criteria.CRITERIA[name]
    taken = inspect.signature(build).parameters
    return build(**{key: value for key, value in offered.items() if key in taken})


OF_UNITS = [
    name
    for name, build in criteria.CRITERIA.items()
    if "structure" in inspect.signature(build).parameters
]
CRITERIA = {n: functools.partial(made, n) for n in criteria.CRITERIA if n not in OF_UNITS}
NEEDS = {name: set(build().needs) for name, build in CRITERIA.items()}
# They need more than a network and its loss, so configs cannot name them.
CRITERIA |= {
    "by_group": lambda: criteria.by_group(criteria.saliency(loss), (1.0, 2.0)),
    "movement_pruning": lambda: (
        lambda params, mask, **kw: criteria.movement_pruning(
            jax.tree.unflatten(jax.tree.structure(params), ACCUMULATED)
        )(params, mask, **kw)
    ),
}
NEEDS["by_group"] = {"batches"}
NAMES = sorted(CRITERIA)


class Layer(eqx.Module):
    """An Equinox module; `eqx.partition` leaves None in place of fields that are not arrays."""

    bias: jax.Array
    kernel: jax.Array
    activation: Callable = jax.nn.relu


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.a = nnx.Linear(WIDTHS[0], WIDTHS[1], rngs=rngs)
        self.b = nnx.Linear(WIDTHS[1], WIDTHS[2], rngs=rngs)


def containers():
    state = nnx.state(Net(), nnx.Param)
    linen = nn.Sequential([nn.Dense(WIDTHS[1]), nn.Dense(WIDTHS[2])])
    trees_ = {
        "linen": linen.init(jax.random.key(0), jnp.zeros((1, WIDTHS[0])))["params"],
        "nnx_state": state,
        "nnx_pure_state": nnx.as_pure(state),
        "nnx_pure_dict": nnx.to_pure_dict(state),
        "equinox": eqx.partition([Layer(*PARAMS[:2]), Layer(*PARAMS[2:])], eqx.is_array)[0],
        "haiku": {"mlp/~/linear_0": {"b": 0, "w": 0}, "mlp/~/linear_1": {"b": 0, "w": 0}},
        "lists": [[0, 0], [0, 0]],
    }
    return {name: jax.tree.structure(tree) for name, tree in trees_.items()}


CONTAINERS = containers()
LISTS = CONTAINERS["lists"]
GRANULARITIES = {
    "weights": (granularity.weights, lambda shape: 1),
    "rows": (granularity.rows(), lambda shape: shape[1]),
    "columns": (granularity.columns(), lambda shape: shape[0]),
    "blocks": (granularity.blocks(2, 4), lambda shape: 8),
    "n_m": (granularity.n_m(3, 4), lambda shape: 1),
}
SCOPES = {"globally": scopes.globally(), "layerwise": scopes.layerwise(), "erk": scopes.erk()}
PRUNABLE = [[False, True], [False, True]]


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def layouts_of(params):
    """The kernels are `(inputs, outputs)` in every container, whatever their names."""
    return {name: DENSE for name in trees.names(params)[1::2]}


def arguments(structure, dtype=jnp.float32):
    """Parameters, their full mask, and every possible input of a criterion, in one container."""
    params, initial = (
        jax.tree.unflatten(structure, [leaf.astype(dtype) for leaf in tree])
        for tree in (PARAMS, INITIAL)
    )
    mask = masks.ones_like(params)
    return params, mask, {"key": jax.random.key(0), "batches": BATCHES, "initial": initial}


def same(a, b, rtol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), a, b)


# One template.


def test_every_builder_is_under_contract():
    assert set(criteria.__all__) <= set(NAMES) | HELPERS


@pytest.mark.parametrize("name", [n for n in NAMES if n != "movement_pruning"])
def test_a_criterion_has_the_signature_of_criteria(name):
    parameters = inspect.signature(CRITERIA[name]()).parameters.values()
    wanted = list(inspect.signature(criteria.Criterion.__call__).parameters.values())[1:]
    shape = [(p.name, p.kind, p.default) for p in wanted]
    assert [(p.name, p.kind, p.default) for p in parameters] == shape


def test_criteria_of_data_name_what_they_need():
    assert NEEDS["obd"] == {"key", "batches"} and NEEDS["random"] == {"key"}
    assert NEEDS["snip"] == {"batches"} and NEEDS["movement"] == {"initial"}
    assert NEEDS["magnitude"] == NEEDS["synflow"] == set()


@pytest.mark.parametrize(
    ("name", "missing"), [(name, need) for name in NAMES for need in sorted(NEEDS.get(name, ()))]
)
def test_what_a_criterion_needs_it_asks_for(name, missing):
    params, mask, given = arguments(LISTS)
    with pytest.raises(ValueError, match=f"`{name}` needs `{missing}`"):
        CRITERIA[name]()(params, mask, **(given | {missing: None}))


@pytest.mark.parametrize("name", NAMES)
def test_what_it_does_not_need_it_does_not_ask_for(name):
    params, mask, given = arguments(LISTS)
    needed = {need: given[need] for need in NEEDS.get(name, ())}
    jax.eval_shape(lambda: CRITERIA[name]()(params, mask, **needed))


@pytest.mark.parametrize("name", ["random", "obd"])
def test_an_untyped_key_is_refused(name):
    params, mask, given = arguments(LISTS)
    with pytest.raises(TypeError, match="`key` must be a typed PRNG key"):
        CRITERIA[name]()(params, mask, **(given | {"key": jax.random.PRNGKey(0)}))


@pytest.mark.parametrize("name", NAMES)
def test_bad_trees_are_named_by_their_leaf(name):
    params, mask, given = arguments(LISTS)
    integers = [[params[0][0], jnp.arange(3)], params[1]]
    with pytest.raises(TypeError, match="`params` at '0/1' has dtype int32"):
        CRITERIA[name]()(integers, mask, **given)
    with pytest.raises(ValueError, match="`mask` must have the structure of `params`"):
        CRITERIA[name]()(params, mask[:1], **given)


# Anybody's pytree.


def program(f, structure):
    """`f(params, mask, key, initial)` as a program, to the letter, and the container it returns."""
    params, mask, given = arguments(structure)
    args = (params, mask, given["key"], given["initial"])
    jaxpr, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    return str(jaxpr), jax.tree.structure(shapes)


@pytest.mark.parametrize("name", NAMES)
def test_scores_come_in_the_container_of_the_parameters(name):
    criterion = CRITERIA[name]()

    def f(params, mask, key, initial):
        return criterion(params, mask, key=key, batches=BATCHES, initial=initial)

    expected, _ = program(f, LISTS)
    for container, structure in CONTAINERS.items():
        found, returned = program(f, structure)
        assert returned == structure, container
        assert found == expected, container


@pytest.mark.parametrize(
    ("grain", "scope"),
    [(grain, "globally") for grain in GRANULARITIES] + [("weights", "layerwise"), ("rows", "erk")],
)
def test_masks_come_in_the_container_of_the_parameters(grain, scope):
    pruner = prune(criteria.magnitude(), SCOPES[scope], GRANULARITIES[grain][0])

    def f(params, mask, key, initial):
        prunable = masks.prunable_leaves(params)
        count = SCOPES[scope].counts(params, 0.4, prunable=prunable)
        return pruner(params, mask, count, prunable=prunable, layouts=layouts_of(params))

    expected, _ = program(f, LISTS)
    for container, structure in CONTAINERS.items():
        found, returned = program(f, structure)
        assert returned == structure, container
        assert found == expected, container


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_scored_in_float32_without_implicit_promotion(name, dtype):
    params, mask, given = arguments(LISTS, dtype)
    scores = jax.eval_shape(lambda: CRITERIA[name]()(params, mask, **given))
    assert {leaf.dtype for leaf in jax.tree.leaves(scores)} == {jnp.dtype(jnp.float32)}


# What the programs do.


@functools.cache
def scorer(name):
    """`(params, mask, key, initial) -> scores`, compiled once."""
    criterion = CRITERIA[name]()

    def score(params, mask, key, initial):
        return criterion(params, mask, key=key, batches=BATCHES, initial=initial)

    return jax.jit(score)


@functools.cache
def selector(grain, select):
    """`(scores, mask, count) -> (mask, info)`, compiled once; scopes of one `select` share it."""

    def run(scores, mask, count):
        scope = scopes.Scope(counts=None, select=select)
        pruner = prune(lambda *_, **__: scores, scope, GRANULARITIES[grain][0])
        options = {"prunable": PRUNABLE, "layouts": layouts_of(scores)}
        return pruner.with_info(scores, mask, count, **options)

    return jax.jit(run)


def pools(mask, count, scope):
    """Of each pool of competitors: weights kept, weights requested, the shapes of its leaves."""
    kernels, kept = (1, 3), [int(leaf.sum()) for leaf in jax.tree.leaves(mask)]
    shapes = [PARAMS[i].shape for i in kernels]
    if scope == "globally":
        return [(sum(kept[i] for i in kernels), int(count), shapes)]
    wanted = [int(leaf) for leaf in jax.tree.leaves(count)]
    return [(kept[i], wanted[i], [s]) for i, s in zip(kernels, shapes, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_every_granularity_and_scope_keeps_its_count_and_resurrects_nothing(name):
    params, full, given = arguments(LISTS)
    for (grain, (_, unit_size)), (scope, rules) in itertools.product(
        GRANULARITIES.items(), SCOPES.items()
    ):
        mask = full
        for density in (0.7, 0.3):
            scores = scorer(name)(params, mask, given["key"], given["initial"])
            count = rules.counts(params, density, prunable=PRUNABLE)
            before, (mask, info) = mask, selector(grain, rules.select)(scores, mask, count)
            if bool(is_bad(info)):  # whole columns read the same activations
                assert (name, grain) == ("activation_norms", "columns")
                same(before, mask)
                continue
            for kept, wanted, shapes in pools(mask, count, scope):
                assert wanted <= kept < wanted + max(map(unit_size, shapes)), (grain, scope)
            assert all(bool(layer[0].all()) for layer in mask)  # biases are not prunable
            for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(mask), strict=True):
                assert not (np.asarray(new) & ~np.asarray(old)).any(), (grain, scope)


def members():
    """Two networks that differ in everything, in the order of a scorer's arguments."""
    params, full, given = arguments(LISTS)
    holes = [[full[0][0], full[0][1].at[::2, 1].set(False)], full[1]]
    other = jax.tree.map(lambda w: 0.5 * w[..., ::-1], params)
    keys = jax.random.split(given["key"], 2)
    return [(params, full, keys[0], other), (other, holes, keys[1], params)]


@pytest.mark.parametrize("name", NAMES)
def test_a_population_is_scored_as_its_members_one_by_one(name):
    together = jax.vmap(scorer(name))(*map(lambda *m: trees.stack(m), *members()))
    for member, scores in zip(members(), trees.unstack(together), strict=True):
        same(scores, scorer(name)(*member), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_criterion_is_the_eager_one(name):
    member = members()[1]
    same(scorer(name).__wrapped__(*member), scorer(name)(*member), rtol=1e-5)


def test_members_prune_by_their_own_keys_and_counts():
    params, mask, _ = arguments(LISTS)
    scope = SCOPES["erk"]
    pruner = prune(criteria.random(), scope)
    counts = [scope.counts(params, d, prunable=PRUNABLE) for d in (0.2, 0.5, 0.2, 1.0)]

    def one(key, count):
        return pruner(params, mask, count, prunable=PRUNABLE, key=key)

    keys = jax.random.split(jax.random.key(1), 4)
    together, alone = jax.jit(jax.vmap(one)), jax.jit(one)
    population = trees.unstack(together(keys, trees.stack(counts)))
    for member, key, count in zip(population, keys, counts, strict=True):
        same(member, alone(key, count))
    assert not np.array_equal(population[0][0][1], population[2][0][1])  # equal but for the key
    rekeyed = trees.unstack(together(keys.at[0].set(jax.random.key(9)), trees.stack(counts)))
    assert not np.array_equal(rekeyed[0][0][1], population[0][0][1])
    same(rekeyed[1:], population[1:])


def test_leaves_of_several_precisions_compete_as_numbers():
    narrow, wide = jnp.array([[1.0, 3.0]], jnp.bfloat16), jnp.array([[2.0]])
    params = [[jnp.zeros(2), narrow], [jnp.zeros(1), wide]]
    pruner = prune(criteria.magnitude(), SCOPES["globally"])
    run = jax.jit(lambda m: pruner(params, m, jnp.int32(2), prunable=PRUNABLE))
    kept = run(masks.ones_like(params))
    assert kept[0][1].tolist() == [[False, True]] and kept[1][1].tolist() == [[True]]
