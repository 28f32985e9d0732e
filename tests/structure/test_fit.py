"""Units within budgets: costs of the compacted networks, and choices beside all other choices."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import structure as st
from lth_jax.models.convolution import conv_general_dilated
from lth_jax.pruning.prune import prune

WIDTHS = (3, 6, 5, 2)
COSTS = ("parameters", "bytes", "flops")
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def chain(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]


def drawn(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def chained(seed=0):
    params = drawn(dict(zip("abc", itertools.pairwise(WIDTHS), strict=True)), seed)
    found = st.find_groups(chain, params, jnp.ones((4, 3)))
    return found, params, st.score_units(found, jax.tree.map(jnp.square, params))


def tied(p, x):
    """A table that also maps to the outputs, and one stack of layers in a scan."""
    x = p["table"][x]
    x, _ = jax.lax.scan(lambda x, w: (x + jnp.tanh(x @ w[0]) @ w[1].T, None), x, p["stack"])
    return x @ p["table"].T


def grouped(p, x):
    x = conv_general_dilated(x, p["a"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.lax.conv_general_dilated(
        jax.nn.relu(x),
        p["b"],
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    )
    return jnp.einsum("nhwc,hwco->no", x, p["c"])


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
        return nn.Dense(2)(nn.gelu(nn.Dense(6)(x)))


def networks():
    attention, tokens = Attention(), jnp.ones((2, 5, 8))
    weights = jax.eval_shape(attention.init, jax.random.key(0), tokens)["params"]
    yield (
        "chain",
        chain,
        drawn(dict(zip("abc", itertools.pairwise(WIDTHS), strict=True))),
        jnp.ones((4, 3)),
    )
    yield "tied", tied, drawn({"table": (7, 6), "stack": (3, 2, 6, 4)}), jnp.zeros((2, 3), int)
    kernels = {"a": (3, 3, 2, 6), "b": (3, 3, 1, 12), "c": (3, 3, 12, 4)}
    yield "grouped", grouped, drawn(kernels), jnp.ones((2, 8, 8, 2))
    apply = lambda p, x: attention.apply({"params": p}, x)  # noqa: E731
    yield "attention", apply, jax.tree.map(lambda s: np.ones(s.shape, s.dtype), weights), tokens


NETWORKS = {name: rest for name, *rest in networks()}


def operations(jaxpr):
    """Two for each multiplication of the products of a jaxpr: an independent count."""
    total = 0
    for eqn in jaxpr.eqns:
        shapes = [v.aval.shape for v in (*eqn.invars[:2], *eqn.outvars[:1]) if hasattr(v, "aval")]
        if eqn.primitive.name == "dot_general":
            contracted = eqn.params["dimension_numbers"][0][0]
            total += 2 * math.prod(shapes[2]) * math.prod(shapes[0][d] for d in contracted)
        elif "conv" in eqn.primitive.name and len(eqn.invars) == 2:  # kernels end with features
            total += 2 * math.prod(shapes[2]) * math.prod(shapes[1][:-1])
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += operations(inner) * eqn.params.get("length", 1)
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_those_of_the_compacted_network(name, random_units):
    apply, params, x = NETWORKS[name]
    found = st.find_groups(apply, params, x)
    for units in ({}, random_units(found), random_units(found, 0.7, seed=1)):
        small, smaller = st.compact(found, params, units)
        leaves = jax.tree.leaves(small)
        assert st.costs(found, params, units) == {
            "parameters": sum(leaf.size for leaf in leaves),
            "bytes": sum(leaf.nbytes for leaf in leaves),
            "flops": operations(jax.make_jaxpr(smaller)(small, x).jaxpr),
        }
    assert st.costs(found, params, units)["flops"] < st.costs(found, params)["flops"]


def test_operations_are_those_of_xla_for_a_network_of_products():
    params = drawn({"k": (3, 3, 2, 6), "w": (6, 5), "v": (5, 2)})

    def linear(p, x):
        x = jax.lax.conv_general_dilated(
            x, p["k"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x @ p["w"] @ p["v"]

    x = jnp.ones((2, 8, 8, 2))
    found = st.find_groups(linear, params, x)
    units = {group.name: np.arange(group.units) < 3 for group in found.groups}
    small, smaller = st.compact(found, params, units)
    cost = jax.jit(smaller).lower(small, x).cost_analysis()
    assert st.costs(found, params, units)["flops"] == cost["flops"]


def test_bytes_follow_the_dtypes_of_the_parameters():
    found, params, _ = chained()
    halves = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    assert 2 * st.costs(found, halves)["bytes"] == st.costs(found, params)["bytes"]


# --- the search


def every_choice(problem):
    return np.array(list(itertools.product(*(range(len(v)) for v in problem.values))))


def largest(problem):
    """The score of the best of all choices."""
    grid = every_choice(problem)
    scores = sum(v[grid[:, g]] for g, v in enumerate(problem.values))
    return scores[(problem.spent(grid) <= 1).all(-1)].max()


def drawn_problem(seed, products, budgets=2):
    """Falling scores of some groups; costs are sums, or products of neighbours."""
    rng = np.random.default_rng(seed)
    units = rng.integers(2, 7, 3)
    values = tuple(np.cumsum(-np.sort(-rng.lognormal(size=n))) for n in units)
    factors = rng.integers(1, 20, (budgets, 4 if products else 3))

    def cost(kept):
        ends = np.ones_like(kept[..., :1])
        wide = np.concatenate([3 * ends, kept, 2 * ends], axis=-1)
        return (wide[..., :-1] * wide[..., 1:] if products else kept) @ factors.T

    least, dense = cost(np.ones(3, int)), cost(units)
    limits = least + rng.uniform(0.1, 0.9, budgets) * (dense - least)
    return st.Problem(values, lambda choice: cost(choice + 1) / limits)


@pytest.mark.parametrize("seed", range(6))
def test_milp_is_the_best_choice_where_costs_are_sums(seed):
    problem = drawn_problem(seed, products=False)
    found = st.milp(problem)
    assert problem.fits(found)
    assert problem.value(found) == pytest.approx(largest(problem), rel=1e-9)


def test_milp_scores_at_least_as_much_as_greedy_and_near_the_best_where_costs_are_products():
    shares = []
    for seed in range(12):
        problem = drawn_problem(seed, products=True)
        first, second, best = st.greedy(problem), st.milp(problem), largest(problem)
        assert problem.fits(first) and problem.fits(second)
        assert problem.value(first) <= problem.value(second) <= best + 1e-9
        shares.append([problem.value(first) / best, problem.value(second) / best])
    by_greedy, by_milp = np.mean(shares, axis=0)
    assert by_greedy > 0.98 and by_milp > 0.995 and by_milp > by_greedy


@pytest.mark.parametrize("solve", [st.greedy, st.milp])
def test_a_problem_without_a_choice_is_refused(solve):
    problem = drawn_problem(0, products=True)
    with pytest.raises(ValueError, match="exceeds a budget even with the smallest count"):
        solve(problem._replace(spent=lambda choice: 2 + problem.spent(choice)))


def test_fit_keeps_the_best_units_of_all_choices():
    found, params, scores = chained()
    budget = {"flops": st.Share(0.5), "parameters": 38}
    units, spent = st.fit(found, params, budget, scores)
    totals = {}
    for flags in itertools.product(*(range(1, g.units + 1) for g in found.groups)):
        masks = {
            g.name: np.argsort(np.argsort(-np.asarray(scores[g.name]))) < k
            for g, k in zip(found.groups, flags, strict=True)
        }
        cost = st.costs(found, params, masks)
        if cost["flops"] <= spent["flops"].dense / 2 and cost["parameters"] <= 38:
            totals[flags] = sum(float(scores[name][m].sum()) for name, m in masks.items())
    kept = tuple(int(units[g.name].sum()) for g in found.groups)
    assert kept == max(totals, key=totals.get)
    exact = st.costs(found, params, units)
    assert {name: one.actual for name, one in spent.items()} == {n: exact[n] for n in budget}
    assert spent["parameters"].limit == 38 and spent["flops"].predicted == exact["flops"]


@pytest.mark.parametrize("solve", [st.milp, st.greedy])
def test_counts_are_multiples_above_their_minima(solve):
    found, params, scores = chained()
    options = {"multiple": 2, "minimum": {"b:1": 4}, "solve": solve}
    units, _ = st.fit(found, params, {"flops": st.Share(0.6)}, scores, **options)
    counts = {name: int(kept.sum()) for name, kept in units.items()}
    assert counts["a:1"] in (2, 4, 6) and counts["b:1"] in (4, 5)
    whole, _ = st.fit(found, params, {"flops": st.Share(1.0)}, scores, multiple=8)
    assert all(kept.all() for kept in whole.values())


def test_the_whole_network_fits_a_whole_budget_and_small_masks_compact():
    apply, params, x = NETWORKS["tied"]
    found = st.find_groups(apply, params, x)
    scores = st.score_units(found, jax.tree.map(jnp.abs, params))
    units, spent = st.fit(found, params, {"bytes": st.Share(0.5)}, scores)
    small, _ = st.compact(found, params, units)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(small)) == spent["bytes"].actual
    assert spent["bytes"].actual <= spent["bytes"].dense / 2
    units, _ = st.fit(found, params, {name: st.Share(1.0) for name in COSTS}, scores)
    assert all(kept.all() for kept in units.values())


def bad(scores_of=lambda scores: scores, budget=None, **options):
    found, params, scores = chained()
    return lambda: st.fit(found, params, budget or {"flops": 90}, scores_of(scores), **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (bad(budget={"flop": 5}), "`budget` is 'flop'; did you mean 'flops'?"),
        (
            bad(budget={"flops": 47}),
            "`budget` at 'flops' is 47, but the least possible is 48, with 1 of a:1",
        ),
        (bad(budget={"bytes": -1}), "`budget` at 'bytes' is -1; it must be a number in"),
        (bad(budget={"bytes": st.Share(1.5)}), "`budget` at 'bytes' is Share"),
        (bad(budget={"milliseconds": 1.0}), "`latency` is None, but `budget` has 'milliseconds'"),
        (bad(lambda s: s | {"a:1": s["a:1"].at[2].set(jnp.nan)}), "`scores` at 'a:1' has entries"),
        (bad(lambda s: {"a:1": s["a:1"]}), "`scores` lacks the group 'b:1'"),
        (bad(lambda s: s | {"c:1": s["a:1"]}), "`scores` is 'c:1'"),
        (bad(lambda s: s | {"a:1": s["b:1"]}), "`scores` at 'a:1' has shape (5,); it must be (6,)"),
        (bad(multiple=0), "`multiple` is 0; it must be an integer"),
        (bad(minimum=7), "`minimum` of 'a:1' is 7; it must be an integer in 1 … 6"),
        (bad(minimum={"z": 1}), "`minimum` is 'z'"),
    ],
)
def test_fit_refuses(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_an_empty_budget_is_refused():
    found, params, scores = chained()
    with pytest.raises(ValueError, match="`budget` is empty; it must limit one of: parameters"):
        st.fit(found, params, {}, scores)


# --- latency


@pytest.fixture
def clock(monkeypatch):
    """Replaces the clock: a call takes 0.3 ms and 1 ms for the weights of the dense network."""

    def seconds(call):
        return (0.3 + sum(leaf.size for leaf in jax.tree.leaves(call.args[0])) / 58) / 1e3

    def relative(make, repeats, copies):
        times = {name: seconds(call) for name, call in make().items()}
        return {name: one / times["dense"] for name, one in times.items()}

    def alone(calls, repeats, warm):
        return {name: [seconds(call)] for name, call in calls.items()}

    monkeypatch.setattr("lth_jax.structure.latency.median_relative_times", relative)
    monkeypatch.setattr("lth_jax.structure.latency.alternated", alone)


def test_predictions_are_right_for_the_networks_that_were_measured(clock):
    found, params, _ = chained()
    latency = st.measure_latency(found, params, jnp.ones((4, 3)))
    assert latency.predict({"a:1": 6, "b:1": 5}) == latency.dense == pytest.approx(1.3)
    assert latency.predict({"a:1": 1, "b:1": 1}) == pytest.approx(0.3 + 6 / 58)
    assert latency.of({"a:1": 3, "b:1": 2}) == pytest.approx(0.3 + (9 + 6 + 4) / 58)
    several = latency.predict({"a:1": np.arange(1, 7), "b:1": np.full(6, 3)})
    assert (np.diff(several) > 0).all()


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_the_measured_latency_fits_although_savings_do_not_add_up(clock, share):
    found, params, scores = chained()
    latency = st.measure_latency(found, params, jnp.ones((4, 3)))
    budget = {"milliseconds": st.Share(share)}
    units, spent = st.fit(found, params, budget, scores, latency=latency)
    one, size = spent["milliseconds"], st.costs(found, params, units)["parameters"]
    assert one.actual == pytest.approx(0.3 + size / 58)
    assert share - 0.12 < one.actual / one.dense <= share


def test_a_latency_below_that_of_the_smallest_network_is_impossible(clock):
    found, params, scores = chained()
    latency = st.measure_latency(found, params, jnp.ones((4, 3)))
    with pytest.raises(ValueError, match=r"is 0\.3, but the least possible is 0\.403"):
        st.fit(found, params, {"milliseconds": 0.3}, scores, latency=latency)
    slower = latency._replace(of=lambda kept: 1.0)
    with pytest.raises(ValueError, match=r"is 0\.5, but the smallest network took 1\."):
        st.fit(found, params, {"milliseconds": 0.5}, scores, latency=slower)


def test_latencies_are_measured_on_the_device():
    found, params, scores = chained()
    x = jnp.ones((4, 3))
    latency = st.measure_latency(found, params, x, points=2, repeats=2, copies=1)
    budget = {"milliseconds": 1e4, "flops": st.Share(0.5)}
    units, spent = st.fit(found, params, budget, scores, latency=latency)
    assert 0 < spent["milliseconds"].actual < 1e4 and spent["milliseconds"].dense > 0
    assert st.costs(found, params, units)["flops"] == spent["flops"].actual


def test_latencies_without_inputs_or_points_are_refused():
    found, params, _ = chained()
    with pytest.raises(ValueError, match="`inputs` is empty"):
        st.measure_latency(found, params)
    with pytest.raises(ValueError, match="`points` is 1; it must be an integer in 2"):
        st.measure_latency(found, params, jnp.ones((4, 3)), points=1)


# --- in ladders


def test_a_scope_of_budgets_keeps_each_level_within_its_share():
    found, params, _ = chained()
    prunable = st.prunable(found)
    scope = st.by_budget(found, "flops")
    squares = lambda params, mask, **_: jax.tree.map(jnp.square, params)  # noqa: E731
    pruner = prune(squares, scope, st.granularity(found))
    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    dense, before = st.costs(found, params)["flops"], st.units_of(found, mask)
    for density in (0.8, 0.6, 0.4):
        count = scope.counts(params, density, prunable=prunable)
        mask = pruner(params, mask, count, prunable=prunable)
        units = {name: np.asarray(kept) for name, kept in st.units_of(found, mask).items()}
        share = st.costs(found, params, units)["flops"] / dense
        assert density - 0.2 < share <= density
        assert all((kept <= before[name]).all() for name, kept in units.items())
        before = units


def test_members_with_budgets_of_their_own_get_the_units_of_single_runs():
    found, _, scores = chained()
    scope = st.by_budget(found, "bytes", multiple=2)
    ranked, alive = jnp.concatenate(list(scores.values())), jnp.arange(11) != 3
    counts = np.array([scope.counts({}, d, prunable=True) for d in (0.9, 0.5)])
    select = lambda count: scope.select(ranked, alive, count, prunable=True)  # noqa: E731
    together = jax.jit(jax.vmap(select), compiler_options=QUICK)(counts)
    for kept, count in zip(together, counts, strict=True):
        np.testing.assert_array_equal(kept, select(count))
        units = dict(zip(scores, np.split(np.asarray(kept), [6]), strict=True))
        assert units["a:1"].sum() in (2, 4) and units["b:1"].sum() in (2, 4, 5)
    assert together[0].sum() > together[1].sum() and not together[:, 3].any()


def test_equal_scores_are_undecided_while_the_budget_removes_units():
    found, params, _ = chained()
    scope, alive = st.by_budget(found), jnp.ones(11, bool)
    inspect = lambda d: scope.inspect(  # noqa: E731
        jnp.ones(11), alive, scope.counts(params, d, prunable=True), prunable=True
    )
    assert inspect(0.5)["undecided"].all() and not inspect(1.0)["undecided"].any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: st.by_budget(f, "flop"), "`cost` is 'flop'"),
        (lambda f: st.by_budget(f, multiple=0), "`multiple` must be at least 1"),
        (
            lambda f: st.by_budget(f).counts({}, 0.05, prunable=True),
            "below the least possible, 0.1",
        ),
        (lambda f: st.by_budget(f).counts({}, 0.0, prunable=True), "`density` must lie in (0, 1]"),
    ],
)
def test_the_scope_refuses(call, words):
    with pytest.raises(ValueError) as error:
        call(chained()[0])
    assert words in str(error.value)


def test_costs_beyond_int32_are_counted_in_units_of_their_common_factor():
    shape = lambda *n: jax.ShapeDtypeStruct(n, "float32")  # noqa: E731
    params = {"v": shape(4096, 8), "w": shape(64, 4096)}
    apply = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]  # noqa: E731
    found = st.find_groups(apply, params, shape(10_000, 64))
    dense = st.costs(found, params)["flops"]
    count = st.by_budget(found).counts(params, 0.5, prunable=True)
    assert dense > 2**31 and dense / 2 % count == 0
