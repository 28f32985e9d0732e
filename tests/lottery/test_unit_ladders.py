"""Ladders of units: heads of attention, and what the controls of equal shape start from."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import schema, trees
from lth_jax import structure as st
from lth_jax.data import indices
from lth_jax.layouts import DENSE, Layout
from lth_jax.lottery import (
    CONTROLS,
    SAME_MASK,
    STRUCTURED_CONTROLS,
    Ladder,
    Rewind,
    Seeds,
    Splits,
    Task,
    imp,
    make_experiment,
    named,
    run,
    run_ladder,
    structure_of,
)
from lth_jax.population import Plan, Trainer, correct, cross_entropy
from lth_jax.pruning import criteria
from lth_jax.pruning.prune import prune
from lth_jax.store import Store
from lth_jax.types import Batch, Model, TrainState

HEADS, WIDTH = 4, 6


def attention(p, x):
    """One layer of self-attention over the pixels, with a residual stream."""
    h = x @ p["embed"]
    q, k, v = (jnp.einsum("btc,chd->bthd", h, p[name]) for name in ("q", "k", "v"))
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(3.0))
    out = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    return (h + jnp.einsum("bthd,hdc->btc", out, p["out"])).mean(1) @ p["read"]


SHAPES = {
    "embed": (3, WIDTH), "q": (WIDTH, HEADS, 3), "k": (WIDTH, HEADS, 3), "v": (WIDTH, HEADS, 3),
    "out": (HEADS, 3, WIDTH), "read": (WIDTH, 2),
}  # fmt: skip


READ_BY_HEADS = Layout((0,), (1, 2), heads=(1,))
LAYOUTS = {
    "embed": DENSE, "q": READ_BY_HEADS, "k": READ_BY_HEADS, "v": READ_BY_HEADS,
    "out": Layout((0, 1), (2,), heads=(0,)), "read": DENSE,
}  # fmt: skip


def init(key, x):
    keys = jax.random.split(key, len(SHAPES))
    drawn = zip(keys, SHAPES.items(), strict=True)
    return {name: jax.random.normal(k, shape) / 2 for k, (name, shape) in drawn}, {}


def apply(params, state, x, *, key=None, train):
    return attention(params, x), state


def examples(seed, n):
    x = np.random.default_rng(seed).normal(size=(n, 4, 3)).astype(np.float32)
    return Batch(jnp.asarray(x), jnp.asarray((x[:, 0, 0] > 0).astype(np.int32)))


@pytest.fixture(scope="module")
def heads():
    x = examples(0, 1).x
    found = st.find_groups(attention, jax.eval_shape(init, jax.random.key(0), x)[0], x)
    [name] = [g.name for g in found.groups if g.units == HEADS]
    return found.only(name)


@pytest.fixture(scope="module")
def nodes(heads, tmp_path_factory):
    trainer = Trainer(
        model=Model(init, apply),
        make_optimizer=lambda h: optax.sgd(h["learning_rate"]),
        loss=cross_entropy,
        metrics={"loss": cross_entropy, "accuracy": correct},
        schedule=optax.constant_schedule(1.0),
        order=lambda key, step, n: indices(key, step, steps=n, batch_size=8, size=24),
        eval_every=2,
    )
    data = Splits(examples(0, 24), examples(1, 6), examples(2, 6))
    task = Task.from_parts(trainer, data, {"learning_rate": 1e-2}, 4)
    scope, prunable = st.by_group(heads), st.prunable(heads)
    made = {name: c.build(heads, st.fan_in) for name, c in STRUCTURED_CONTROLS.items()}
    ladder = Ladder(
        counts=[{heads.groups[0].name: np.int32(n)} for n in (3, 1)],
        pruner=prune(criteria.magnitude(), scope, st.granularity(heads)),
        prunable=prunable,
        rewind=Rewind(),
        controls=named(["reinit", "scratch", "random_units"], CONTROLS | made),
        stop=2,
        score_step=2,
        layouts=LAYOUTS,
    )
    store = Store(tmp_path_factory.mktemp("store"))
    cell = make_experiment(task, Seeds(jax.random.key(0), 2), ladder)
    [entries] = run_ladder([cell], store=store, plans=[(0, Plan(2))])
    return [schema.read_record(store, entry.key) for entry in entries]


def arm(nodes, level, name):
    """Arrays of one arm at one level, replicates first."""
    for node in nodes:
        rows = [i for i, member in enumerate(node.facts.members) if member.arm == name]
        if node.facts.level == level and rows:
            mine = node.take(rows)
            return {"mask": mine.mask, "end": mine.points["end"]._asdict()}
    raise AssertionError(f"no {name} at {level}")


def heads_of(mask):
    return mask["q"].any(axis=(1, 3))


def test_heads_go_whole_and_the_controls_have_the_tickets_shape(nodes):
    before = np.ones((2, HEADS), bool)
    for level, count in ((1, 3), (2, 1)):
        for name in ("ticket", "reinit", "scratch", "random_units"):
            mask = arm(nodes, level, name)["mask"]
            kept = heads_of(mask)
            np.testing.assert_array_equal(kept.sum(1), count)
            for leaf in "qkv":
                np.testing.assert_array_equal(mask[leaf], np.broadcast_to(
                    kept[:, None, :, None], mask[leaf].shape))  # fmt: skip
            np.testing.assert_array_equal(mask["out"].all(axis=(2, 3)), kept)
            assert mask["embed"].all() and mask["read"].all()
        ticket = heads_of(arm(nodes, level, "ticket")["mask"])
        assert (before | ~ticket).all()
        for name in ("reinit", "scratch"):
            np.testing.assert_array_equal(heads_of(arm(nodes, level, name)["mask"]), ticket)
        before = ticket


def test_the_trained_ticket_compacts_to_itself(nodes, heads):
    ticket = arm(nodes, 2, "ticket")
    params, mask = trees.index(ticket["end"]["params"], 0), trees.index(ticket["mask"], 0)
    units = jax.tree.map(np.asarray, st.units_of(heads, mask))
    small, compact = st.compact(heads, params, units)
    assert small["q"].shape == (WIDTH, 1, 3) and small["out"].shape == (1, 3, WIDTH)
    x = examples(0, 1).x
    np.testing.assert_allclose(compact(small, x), attention(params, x), atol=1e-5)


def perceptron(p, x):
    return jax.nn.relu(x @ p["a"]) @ p["b"]


@pytest.fixture(scope="module")
def unstructured():
    """A ticket of single weights, its starting point, a fresh one, and the network's units."""
    rng = np.random.default_rng(0)
    draw = lambda: {"a": rng.normal(size=(5, 12)), "b": rng.normal(size=(12, 3))}  # noqa: E731
    dense, fresh = (TrainState(jax.tree.map(jnp.asarray, draw()), {}, None) for _ in range(2))
    mask = jax.tree.map(lambda p: jnp.asarray(rng.random(p.shape) < 0.3), dense.params)
    return mask, dense, fresh, st.find_groups(perceptron, dense.params, jnp.ones((1, 5)))


PRUNABLE = {"a": True, "b": True}
DENSE_LAYOUTS = {"a": DENSE, "b": DENSE}


OF_WEIGHTS = [name for name, c in STRUCTURED_CONTROLS.items() if c.granularity == "weights"]


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_the_states_that_structured_controls_start_from(unstructured, name):
    mask, dense, fresh, found = unstructured
    coarsen = {
        "refill": lambda m, p: st.refill(found, m, p),
        "regroup": lambda m, p: st.regroup(m, p, layouts=DENSE_LAYOUTS),
    }
    first, _, broken = name.partition("_")
    control = STRUCTURED_CONTROLS[name].build(found, st.fan_in)
    options = {"prunable": PRUNABLE, "layouts": DENSE_LAYOUTS}
    run = jax.jit(lambda key: control(mask, dense, fresh, key=key, **options))
    own, start = run(jax.random.key(3))
    plain = coarsen[first](mask, PRUNABLE)
    same = all((own[leaf] == plain[leaf]).all() for leaf in own)
    assert same is (broken != "random") and same is (name == first or name in SAME_MASK)
    assert sum(leaf.sum() for leaf in own.values()) == sum(m.sum() for m in plain.values())
    source = fresh if broken in ("reinit", "scratch") else dense
    changed = [leaf for leaf in own if not np.array_equal(start.params[leaf], source.params[leaf])]
    assert changed == (["b"] if broken == "scratch" else [])


def test_scratch_has_the_fan_of_the_small_network(unstructured):
    _, dense, fresh, found = unstructured
    whole = st.expand(found, {"a:1": jnp.arange(12) < 3})
    control = STRUCTURED_CONTROLS["scratch"].build(found, st.fan_in)
    options = {"prunable": PRUNABLE, "layouts": DENSE_LAYOUTS}
    own, start = control(whole, dense, fresh, key=jax.random.key(0), **options)
    assert own is whole
    np.testing.assert_array_equal(start.params["a"], fresh.params["a"])  # its inputs all stay
    np.testing.assert_allclose(start.params["b"], 2 * fresh.params["b"], rtol=1e-6)


@pytest.mark.slow
def test_a_convolutional_ladder_keeps_each_ticket_within_its_operations():
    """`imp` with a scope of budgets: every replicate has channels of its own, and one cost."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for channels in (6, 8):
                x = nn.relu(nn.Conv(channels, (3, 3))(x))
            return nn.Dense(2)(x.mean((1, 2)))

    x = np.random.default_rng(0).normal(size=(60, 5, 5, 2)).astype(np.float32)
    data = x, (x.mean((1, 2, 3)) > 0).astype(int)
    task = Task(Net(), data, optimizer=optax.adam(0.01), batch_size=10, steps=6)
    found = structure_of(task)
    spec = imp(
        levels=2,
        rate=0.4,
        scope=st.by_budget(found, "flops"),
        granularity=st.granularity(found),
        prunable=st.prunable(found),
    )
    result = run(task, spec, replicates=2, seed=0, plan=Plan(2), progress=False)
    dense, masks = st.costs(found, found.params)["flops"], []
    for level in (1, 2):
        for ticket in result.tickets(level):
            units = jax.tree.map(np.asarray, st.units_of(found, ticket.mask))
            share = st.costs(found, found.params, units)["flops"] / dense
            assert 0.6**level - 0.15 < share <= 0.6**level
            masks.append(tuple(tuple(kept) for kept in units.values()))
    assert len(set(masks)) == 4
