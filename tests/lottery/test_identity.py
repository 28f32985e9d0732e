"""What decides a number is in its key: programs, constants, data, keys, plan and flags."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.data import indices
from lth_jax.lottery import (
    Label,
    Ladder,
    Rewind,
    Seeds,
    Splits,
    Task,
    arms_programs,
    fingerprint,
    make_experiment,
    named,
    training_program,
)
from lth_jax.lottery.member_table import member_keys
from lth_jax.lottery.running import run_identity
from lth_jax.population import Plan, Trainer, correct, cross_entropy
from lth_jax.pruning import criteria, granularity, scopes
from lth_jax.pruning.prune import prune
from lth_jax.types import DENSE, TICKET, Batch, Model
from tests.lottery import fingerprints
from tests.lottery.setups import Setup

FLAG = "JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS"
TABLE = np.random.default_rng(1).normal(size=(24, 3)).astype(np.float32)
PLANS = [(0, Plan(2))]
X = jax.ShapeDtypeStruct((3,), "float32")


def elsewhere(**variables):
    """The fingerprints of another process."""
    command = [sys.executable, "-m", "tests.lottery.fingerprints"]
    env = {**os.environ, "PYTHONPATH": ".", **variables}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_functions_differ_and_are_the_same_in_another_process():
    here = fingerprints.found()
    assert len(set(here.values())) == len(here)
    assert elsewhere(PYTHONHASHSEED="7", **{FLAG: "0"}) == here


def test_functions_differ_where_constants_are_hoisted():
    hoisted = elsewhere(PYTHONHASHSEED="8", **{FLAG: "1"})
    assert len(set(hoisted.values())) == len(hoisted)


def test_equal_functions_have_one_fingerprint():
    def f(x, table):
        return jnp.tanh(x * jnp.asarray(table))  # a comment is nothing

    table = np.arange(3.0, dtype=np.float32)
    same = {fingerprint(lambda x, t=t: f(x, t), X) for t in (table, table.copy(), jnp.array(table))}
    assert len(same) == 1


def test_which_argument_is_used_counts():
    both = {"a": X, "b": X}
    assert fingerprint(lambda h: 2 * h["a"], both) != fingerprint(lambda h: 2 * h["b"], both)
    assert fingerprint(lambda h: {"a": h}, X) != fingerprint(lambda h: {"b": h}, X)


def test_long_constants_are_read_to_their_end():
    long = np.zeros(300_000, np.float32)
    other = long.copy()
    other[-7] = 1
    of = [fingerprint(lambda x, c=c: x + jnp.asarray(c).sum(), X) for c in (long, other)]
    assert of[0] != of[1]


def test_calls_to_python_are_refused():
    def f(x):
        return jax.pure_callback(np.sin, x, x)

    with pytest.raises(ValueError, match=r"`jax\.pure_callback` calls .* on the host"):
        fingerprint(lambda x: jax.jit(f)(x), X)


def small(**changes):
    """A minimal trainer of a linear network."""

    def init(key, x):
        return {"w": jax.random.normal(key, (x.shape[1], 3))}, {}

    def apply(params, state, x, *, key=None, train):
        return jnp.tanh(x @ params["w"]), state

    loss = changes.pop("loss", cross_entropy)
    model = Model(changes.pop("init", init), changes.pop("apply", apply))
    fields = {
        "make_optimizer": lambda h: optax.sgd(h["learning_rate"], 0.9),
        "metrics": {"loss": loss, "accuracy": correct},
        "schedule": optax.constant_schedule(1.0),
        "order": lambda key, step, n: indices(key, step, steps=n, batch_size=4, size=24),
        "eval_every": 2,
    }
    return Trainer(model=model, loss=loss, **{**fields, **changes})


def data_of(seed=0):
    def split(n):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, 5)).astype(np.float32)
        return Batch(jnp.asarray(x), jnp.asarray(rng.integers(0, 3, n).astype(np.int32)))

    return Splits(split(24), split(8), split(6))


def setup_of(trainer=None, data=None, hyper=None, **seeds):
    hyper = {"learning_rate": 0.1} if hyper is None else hyper
    task = Task.from_parts(trainer or small(), data or data_of(), hyper, 4)
    return Setup(task, Seeds(**{"root": jax.random.key(0), "replicates": 2, **seeds}))


def ladder_of(**changes):
    like = {"w": jax.ShapeDtypeStruct((5, 3), "float32")}
    scope, prunable = scopes.globally(), {"w": True}
    ladder = Ladder(
        counts=[scope.counts(like, 0.5, prunable=prunable)],
        pruner=prune(criteria.magnitude(), scope),
        prunable=prunable,
        rewind=Rewind(),
        controls=named(["reinit", "shuffle"]),
        stop=4,
        score_step=4,
    )
    return ladder._replace(**changes)


def wider(key, x):
    return {"w": 2 * jax.random.normal(key, (x.shape[1], 3))}, {}


def relu(params, state, x, *, key=None, train):
    return jax.nn.relu(x @ params["w"]), state


def only_in_training(params, state, x, *, key=None, train):
    return jnp.tanh(x @ params["w"]) * (1.5 if train else 1.0), state


def taught(table):
    """A batch with the logits of a teacher, which `show` closes over."""

    def show(key, data, rows, member, constants):
        return Batch(data.x[rows], jnp.asarray(table)[rows].argmax(-1))

    return show


TRAINERS = {
    "initial values": {"init": wider},
    "activation": {"apply": relu},
    "activation in training": {"apply": only_in_training},
    "loss": {"loss": lambda out, y: 2 * cross_entropy(out, y)},
    "measure": {"metrics": {"loss": cross_entropy, "accuracy": lambda out, y: correct(out, y) / 2}},
    "optimizer": {"make_optimizer": lambda h: optax.adam(h["learning_rate"])},
    "momentum": {"make_optimizer": lambda h: optax.sgd(h["learning_rate"], 0.8)},
    "schedule": {"schedule": optax.linear_schedule(1.0, 0.0, 4)},
    "order": {
        "order": lambda key, step, n: indices(key, step, steps=n, batch_size=4, size=20),
    },
    "interval": {"eval_every": 4},
    "objective": {"objective": lambda out, y: cross_entropy(out, y) + 1},
    "teacher": {"transform_batch": taught(TABLE)},
    "another teacher": {"transform_batch": taught(-TABLE)},
    "what is tested": {
        "eval_member": lambda m, train: m._replace(params=jax.tree.map(jnp.negative, m.params))
    },
}


def from_constants(key, data, rows, member, constants):
    return Batch(data.x[rows], constants["table"][rows].argmax(-1))


def test_constants_are_data_and_no_part_of_the_program():
    def of(table):
        trainer = small(transform_batch=from_constants, constants={"table": jnp.asarray(table)})
        cell = make_experiment(*setup_of(trainer), ladder_of())
        return cell.identity.training, cell.identity.constants, member_keys(cell, PLANS)[0]

    (one, table, keys), (other, negative, others) = of(TABLE), of(-TABLE)
    assert of(TABLE) == (one, table, keys)
    assert one == other and table != negative and not {*keys.values()} & {*others.values()}
    wider = of(np.concatenate([TABLE, TABLE], axis=1))
    assert wider[0] != one  # shapes are part of the program


@pytest.mark.slow
def test_a_program_of_training_covers_every_part_of_a_trainer():
    def key(trainer):
        setup = setup_of(trainer)
        return training_program(trainer, setup.task.data, setup.task.hyper, setup.seeds.root)

    plain = key(small())
    assert key(small()) == plain
    found = {name: key(small(**changes)) for name, changes in TRAINERS.items()}
    assert len({plain, *found.values()}) == 1 + len(found)


def shifted(by):
    def control(mask, dense, fresh, *, key, prunable, layouts=None):
        del fresh, key, prunable, layouts
        return jax.tree.map(lambda leaf: jnp.roll(leaf, by), mask), dense

    return control


def by_table(table):
    score = jnp.asarray(table)[:5]
    return lambda params, mask, **_: {"w": jnp.abs(params["w"]) * score}


def test_programs_of_arms_cover_criterion_scope_rewinding_and_controls():
    setup = setup_of()

    def of(**changes):
        return arms_programs(setup.task, ladder_of(**changes), setup.seeds.root)

    plain, scope = of(), scopes.globally()
    assert of() == plain and set(plain) == {TICKET, "reinit", "shuffle"}
    assert of(counts=[]) == {}
    tickets = [
        plain,
        of(pruner=prune(criteria.random(), scope)),
        of(pruner=prune(criteria.magnitude(), scope, granularity.rows())),
        of(pruner=prune(by_table(TABLE), scope)),
        of(pruner=prune(by_table(TABLE + 1), scope)),
        of(rewind=Rewind(what="learning_rate")),
        of(rewind=Rewind(optimizer="keep")),
    ]
    assert len({found[TICKET] for found in tickets}) == len(tickets)
    assert all(found["reinit"] == plain["reinit"] for found in tickets)
    controls = [of(controls={"mine": shifted(by)}) for by in (1, 2)]
    assert controls[0]["mine"] != controls[1]["mine"]
    assert all(found[TICKET] == plain[TICKET] for found in controls)


def test_ladders_that_differ_in_batches_share_the_program_and_no_ticket():
    def loss(params, batch):
        return jnp.sum((batch.x @ params["w"]) ** 2)

    pruner, programs, found = prune(criteria.snip(loss), scopes.globally()), [], []
    for seed in (0, 0, 1):
        ladder = ladder_of(pruner=pruner, batches=[data_of(seed).test])
        cell = make_experiment(*setup_of(), ladder, training="program")
        programs.append(cell.identity.arms[TICKET])
        [dense, above] = member_keys(cell, PLANS)
        found.append((dense[Label(DENSE, 0)], above[Label(TICKET, 0)]))
    assert len(set(programs)) == 1
    assert found[0] == found[1] and found[0][0] == found[2][0] and found[0][1] != found[2][1]


@pytest.mark.slow
def test_a_members_key_is_made_of_all_that_decides_it():
    training = {"training": "program"}

    def keys(setup=None, ladder=None, plans=PLANS, **known):
        cell = make_experiment(*(setup or setup_of()), ladder or ladder_of(), **(training | known))
        [dense, above] = member_keys(cell, plans)
        return dense[Label(DENSE, 0)], above[Label(TICKET, 0)], above[Label("shuffle", 0)]

    plain = keys()
    assert keys() == plain and len(set(plain)) == 3
    changed = [
        keys(training="another program"),
        keys(setup_of(data=data_of(1))),
        keys(setup_of(root=jax.random.key(1))),
        keys(setup_of(root=jax.random.key(0, impl="rbg"))),
        keys(setup_of(hyper={"learning_rate": np.nextafter(np.float32(0.1), np.float32(1))})),
        keys(setup_of(shared_order=True)),
        keys(plans=[(0, Plan(1))]),
        keys(plans=[(0, Plan(2, "host"))]),
        keys(ladder=ladder_of(stop=5, score_step=5)),
    ]
    for context in (
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("strict"),
        jax.threefry_partitionable(False),
    ):
        with context:
            changed.append(keys())
    for i, places in enumerate(zip(plain, *changed, strict=True)):
        assert len(set(places)) == len(places), i
    above = keys(ladder=ladder_of(pruner=prune(by_table(TABLE), scopes.globally())))
    assert above[0] == plain[0] and above[1] != plain[1] and above[2] != plain[2]
    other = keys(ladder=ladder_of(controls={"shuffle": shifted(1)}))
    assert other[:2] == plain[:2] and other[2] != plain[2]


def test_the_data_of_a_cell_are_read_where_nobody_names_them():
    known = {"training": "program", "arms": {TICKET: "", "reinit": "", "shuffle": ""}}

    def data(setup):
        return make_experiment(*setup, ladder_of(), **known).identity.data

    assert data(setup_of()) == data(setup_of(data=data_of())) != data(setup_of(data=data_of(1)))


def test_a_run_of_other_counts_or_leaves_is_another_run():
    known = {"training": "program", "arms": {TICKET: "", "reinit": "", "shuffle": ""}}

    def identity(**changes):
        return run_identity(make_experiment(*setup_of(), ladder_of(**changes), **known))

    one, again = identity(), identity()
    assert one == again
    assert identity(counts=[{"w": np.int32(3)}]) != one
    assert identity(prunable={"w": False}) != one
