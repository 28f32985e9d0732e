"""Bad arguments of public functions: a TypeError or ValueError whose one sentence names them."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lth_jax as lth
from lth_jax import data, keys, lottery, population
from lth_jax import structure as st
from lth_jax.data import planted, sequences, tabular
from lth_jax.lottery.rewind import Rewind, check_rewind
from lth_jax.measures import intervals
from lth_jax.population import Plan, augment
from lth_jax.population.placement import check_plan
from lth_jax.pruning import criteria, granularity, schedules
from lth_jax.pruning.transforms import subnetwork

NAN, INF = float("nan"), float("inf")
PARAMS = {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 2))}
MASK, USE = lth.ones_like(PARAMS), {"a": True, "b": True}
KEY = jax.random.key(0)
PRUNER = lth.prune(lth.magnitude(), lth.globally())
COUNT = lth.globally().counts(PARAMS, 0.5, prunable=USE)


def pruned(params=PARAMS, mask=MASK, count=COUNT, prunable=None, **inputs):
    return PRUNER(params, mask, count, prunable=prunable or USE, **inputs)


def loaded(**changes):
    asked = {"data_dir": Path("nowhere"), "seed": 0, "validation": 0, **changes}
    return data.load(asked.pop("name", "digits"), **asked)


def rigl(events=subnetwork.EACH_UPDATE, **options):
    return lth.rigl(optax.sgd(0.1), lth.ones_like, events, prunable=USE, **options)


def evolved(events=subnetwork.EACH_UPDATE, **options):
    return lth.sparse_evolution(
        optax.sgd(0.1), lth.ones_like, events, key=KEY, prunable=USE, **options
    )


def task(outputs=2):
    x = np.linspace(-1, 1, 120, dtype=np.float32).reshape(40, 3)
    return lottery.Task(
        nn.Dense(outputs),
        (x, (x[:, 0] > 0).astype(int)),
        optimizer=lambda hyper: optax.sgd(hyper["learning_rate"]),
        batch_size=4,
        steps=2,
        hyper={"learning_rate": 0.1},
    )


def ladder(controls, control_levels=None, levels=1):
    return lottery.make_ladder(task(), lottery.imp(levels=levels), controls, control_levels)


def started(control):
    """An experiment with a control; nothing is trained."""
    seeds = lottery.Seeds(KEY, 2)
    return lottery.make_experiment(task(), seeds, ladder({"mine": control}))


def stacked():
    forward = lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"]  # noqa: E731
    return st.find_groups(forward, PARAMS, jnp.ones((1, 4)))


CASES = {
    "minimum": [lambda v=v: lth.globally(v) for v in (-1, 1.5, NAN, "1", None, True)],
    "density": [
        lambda v=v: lth.globally().counts(PARAMS, v, prunable=USE)
        for v in (0, 0.0, -0.1, 1.5, NAN, INF, "half")
    ],
    "density ": [
        lambda: lth.erk().counts(PARAMS, 0.01, prunable=USE),
        lambda: lth.layerwise().counts(PARAMS, {"a": 0.5}, prunable=USE),
    ],
    "rules": [lambda: lth.per_leaf(PARAMS, 0.5, {"c*": 0.1})],
    "rate": [lambda v=v: schedules.geometric(v) for v in (0.0, 1.0, -1, 2, NAN, "much")],
    "rate ": [lambda v=v: lottery.imp(rate=v) for v in (0, 1, 1.2, True)],
    "levels": [lambda v=v: schedules.linear(v, 0.5) for v in (0, -1, 1.5, True, NAN)],
    "final": [lambda v=v: schedules.cubic(3, v) for v in (0.0, 1.1, NAN, None)],
    "level": [lambda v=v: schedules.geometric(0.2)(v) for v in (-1, 0.5, NAN, INF)],
    "threshold": [lambda: schedules.early_bird(USE, threshold=2.0)],
    "window": [lambda: schedules.early_bird(USE, window=0)],
    "params": [
        lambda: pruned({"a": jnp.ones((4, 3), int), "b": jnp.ones((3, 2))}),
        lambda: pruned({}, {}, prunable={"a": True}),
        lambda: lth.globally().counts({}, 0.5, prunable={}),
        lambda: lth.ones_like({"a": "text"}),
    ],
    "mask": [
        lambda: pruned(mask={"a": MASK["a"]}),
        lambda: pruned(mask=PARAMS),
        lambda: lth.apply_mask({"a": MASK["a"]}, PARAMS),
    ],
    "prunable": [
        lambda: pruned(prunable={"a": True}),
        lambda: pruned(prunable={"a": 1, "b": 0}),
        lambda: lth.density(MASK, {"a": True}),
    ],
    "count": [
        lambda: pruned(count={"a": 1, "b": 1}),
        lambda: pruned(count=-1),
        lambda: pruned(count=1.5),
        lambda: pruned(count=100),
    ],
    "height": [lambda v=v: granularity.blocks(v, 2) for v in (0, -1, 1.5)],
    "width": [lambda v=v: granularity.blocks(2, v) for v in (0, True)],
    "n": [lambda: granularity.n_m(0, 4), lambda: granularity.n_m(5, 4)],
    "along": [lambda: granularity.n_m(2, 4, "rows")],
    "every": [
        lambda v=v: lth.gradual(
            optax.sgd(0.1), PRUNER, COUNT[None], subnetwork.Events(v), prunable=USE
        )
        for v in (0, -3)
    ]
    + [
        lambda: lth.straight_through(
            optax.sgd(0.1), PRUNER, COUNT, subnetwork.Events(0), prunable=USE
        )
    ]
    + [lambda: lth.rigl(optax.sgd(0.1), lth.ones_like, subnetwork.Events(0), prunable=USE)],
    "end": [
        lambda: rigl(subnetwork.Events(begin=20, end=10)),
        lambda: evolved(subnetwork.Events(begin=10, end=10)),
        lambda: lth.methods.rigl(
            prunable=USE, steps=50, events=subnetwork.Events(begin=20, end=10)
        ),
    ],
    "fraction ": [
        lambda v=v, make=make: make(fraction=v)
        for v in (0, 0.0, -0.1, 1.5, NAN, INF, "0.3", True, None)
        for make in (rigl, evolved)
    ],
    "chunk": [lambda: criteria.fisher(lambda p, b: 0.0, chunk=0)],
    "probes": [lambda: criteria.obd(lambda p, b: 0.0, probes=0)],
    "purpose": [lambda: keys.stream(KEY, "nothing")],
    "key": [lambda: keys.stream(jax.random.PRNGKey(0), "init"), lambda: keys.check_key(3)],
    "seed": [lambda v=v: keys.from_seed(v) for v in (-1, 2**32, 1.5, True, "0", None)],
    "validation": [lambda v=v: loaded(validation=v) for v in (-1, 1.5, True)],
    "train_examples": [lambda v=v: loaded(train_examples=v) for v in (0, -1, "all")],
    "unlabelled": [lambda: loaded(unlabelled=-1)],
    "name": [lambda: loaded(name="digitz")],
    "size": [lambda: loaded(size=3)],
    "modulus": [lambda v=v: sequences.modular_addition(modulus=v) for v in (0, 1.5)],
    "symbols": [lambda: sequences.copy(symbols=0)],
    "train": [lambda: sequences.delayed_recall(train=0), lambda: planted.planted(train=-1)],
    "concentration": [lambda: sequences.markov(concentration=NAN)],
    "minority": [lambda v=v: tabular.grouped(minority=v) for v in (-0.1, NAN, 2)],
    "confidence": [
        lambda v=v: intervals.student_t(np.arange(5.0), confidence=v) for v in (0, 1, 95, NAN)
    ],
    "values": [lambda: intervals.student_t(np.zeros((2, 2, 2)))],
    "successes": [
        lambda: intervals.clopper_pearson(5, 3),
        lambda: intervals.clopper_pearson(-1, 3),
    ],
    "multiple": [lambda: st.by_group(stacked(), multiple=0)],
    "fraction": [lambda v=v: st.unit_counts(stacked(), v) for v in (0.0, 1.5, NAN)],
    "patterns": [lambda: stacked().only("nothing*")],
    "rewind.what": [lambda: check_rewind(Rewind(what="all"), 10)],
    "rewind.step": [lambda v=v: check_rewind(Rewind(step=v), 10) for v in (-1, 10)],
    "rewind.optimizer": [lambda: check_rewind(Rewind(optimizer="old"), 10)],
    "controls": [
        lambda: lottery.named(["nothing"]),
        lambda: lottery.named(["reinit"] * 2),
        lambda: ladder({"ticket": lottery.CONTROLS["reinit"]}),
        lambda: ladder({"dense": lottery.CONTROLS["reinit"]}),
        lambda: started(lambda mask, dense, fresh, **_: mask),
        lambda: started(lambda mask, dense, fresh, **_: (dense, mask)),
        lambda: started(lambda mask, dense, fresh, **_: (mask, dense, fresh)),
        lambda: started(lambda mask, dense, fresh, **_: None),
    ],
    "control_levels": [
        lambda v=v: ladder(["reinit"], v)
        for v in ((3,), [0], (-1,), (1, 2), "all", "1", 1, (1.0,), (True,), ("1",), {"one": 1})
    ]
    + [lambda: ladder(["reinit"], (1,), levels=0)],
    "task": [lambda v=v: lottery.run(*v) for v in ((lottery.imp(), task()), ([1], lottery.imp()))],
    "spec": [lambda: lottery.run(task(), [1]), lambda: lottery.make_ladder(task(), None)],
    "store": [lambda v=v: lottery.run(task(), lottery.imp(), store=v) for v in (3, True, [])],
    "predicate": [lambda v=v: lth.prunable_leaves(PARAMS, v) for v in ("Dense", ["a"], True)],
    "hyper": [
        lambda v=v: population.initial(task(), 4, hyper=v)
        for v in ([0.1] * 4, [], 0.1, np.full(4, 0.1), "learning_rate")
    ],
    "hyper['learning_rate']": [
        lambda v=v: population.initial(task(), 2, hyper={"learning_rate": v})
        for v in (NAN, INF, -INF, [0.1, NAN], "0.1", ["0.1", "0.2"], None, 1j, 1e300)
    ],
    "hyper['replicate']": [
        lambda v=v: population.initial(task(), 2, hyper={"replicate": v})
        for v in (NAN, "0", 2**31, [0, INF])
    ],
    "members": [lambda v=v: population.measure(task(), v) for v in (PARAMS, None)]
    + [lambda: population.measure(task(3), population.initial(task(), 2))],
    "chunk ": [lambda: check_plan(Plan(0)), lambda: check_plan(Plan(3, devices=2))],
    "driver": [lambda: check_plan(Plan(1, "loop"))],
    "vmapped": [lambda: check_plan(Plan(4, vmapped=3))],
    "padding": [lambda: augment.crop(-1)],
}


@pytest.mark.parametrize("name", CASES)
def test_bad_arguments_are_refused_in_one_sentence(name):
    for case in CASES[name]:
        with pytest.raises((TypeError, ValueError)) as caught:
            case()
        message = " ".join(str(caught.value).split())
        assert f"`{name.strip()}`" in message or name.strip() in message.split("`")[1]


def test_there_are_many():
    assert sum(map(len, CASES.values())) > 80
