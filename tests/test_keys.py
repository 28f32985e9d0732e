"""Streams of random numbers: no two purposes share one, and nothing is drawn past them."""

import ast
import inspect
import itertools
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lth_jax
from lth_jax import keys
from lth_jax.data import arrays, datasets, made, mnist1d, planted, sequences
from lth_jax.data.order import in_order, indices
from lth_jax.data.sources import GENERATED
from lth_jax.landscape import ends, lanczos, operators, quadrature, traces
from lth_jax.landscape.connectivity import filter_direction, renew_state
from lth_jax.lottery import Task, controls, imp, run, stability
from lth_jax.measures import recovery
from lth_jax.models import MLP
from lth_jax.population import augment, segment
from lth_jax.population.averaging import averaged, mean_network
from lth_jax.population.crops import random_box
from lth_jax.pruning import criteria, masks, supermask, transforms
from lth_jax.pruning.transforms import Events
from lth_jax.structure.regroup import shuffle_blocks
from lth_jax.types import Batch, Key, Model, TrainState
from tests.population.tiny import TRAIN, TRAINER, make_trainer
from tests.thinning import sampled

ROOT = Path(__file__).resolve().parents[1]
IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")
SMALL = jnp.arange(64)


def numbers(key):
    """The data of a batch of keys, each as a tuple."""
    data = np.asarray(jax.random.key_data(key))
    return [tuple(row) for row in data.reshape(-1, data.shape[-1]).tolist()]


def indexed(key):
    """What `fold_in` and `split` make of a key and small numbers."""
    folded = jax.vmap(jax.random.fold_in, (None, 0))(key, SMALL)
    return {*numbers(folded), *numbers(jax.random.split(key, len(SMALL)))}


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_no_two_streams_coincide(impl):
    root = jax.random.key(3, impl=impl)
    derived = [
        keys.derive(root, replicate, purpose, level, *labels)
        for replicate, purpose, level in itertools.product(range(3), keys.PURPOSES, range(3))
        for labels in ((), ("shuffle",))
    ]
    alone = [keys.stream(root, purpose) for purpose in keys.PURPOSES]
    labelled = [keys.stream(root, purpose, "1") for purpose in keys.PURPOSES]
    data_keys = [keys.derive(root, replicate, "data") for replicate in range(2)]
    own = [keys.stream(key, purpose) for key in data_keys for purpose in keys.PURPOSES]
    of_steps = [key for stream in own for key in indexed(stream)]
    shown = jax.random.fold_in(keys.stream(data_keys[0], "shown"), 5)
    changes = [keys.stream(shown, "change", i) for i in range(8)]
    streams = numbers(jnp.stack([*derived, *alone, *labelled, *own, *changes]))
    past = [*indexed(keys.as_threefry(root)), *indexed(data_keys[0])]
    every = [*streams, *of_steps, *past]
    assert len(every) == len(set(every))


def test_both_ways_of_indexing_a_key_coincide():
    """Why no purpose is an index: JAX's `split` and `fold_in` share a stream."""
    assert len(indexed(jax.random.key(0))) == len(SMALL)


def test_a_purpose_must_be_listed():
    with pytest.raises(ValueError, match="`purpose` is 'noize'; it must be one of init, "):
        keys.stream(jax.random.key(0), "noize")


def test_labels_are_distinguished():
    key = jax.random.key(0)
    labels = [(), (1,), ("1",), (1, 1), ("1, 1",), ("11",), (11,)]
    assert len({*numbers(jnp.stack([keys.stream(key, "control", *x) for x in labels]))}) == 7
    np.testing.assert_array_equal(
        *(jax.random.key_data(keys.stream(key, "control", x)) for x in (3, np.int64(3)))
    )
    with pytest.raises(TypeError):
        keys.stream(key, "control", 1.5)


def test_streams_are_the_same_under_jit_and_vmap():
    for impl in IMPLEMENTATIONS:
        roots = jax.random.split(jax.random.key(1, impl=impl), 3)
        together = jax.jit(jax.vmap(lambda key: keys.stream(key, "order")))(roots)
        alone = [keys.stream(key, "order") for key in roots]
        assert numbers(together) == numbers(jnp.stack(alone))
        assert numbers(keys.as_threefry(roots)) == [
            n for key in roots for n in numbers(keys.as_threefry(key))
        ]


# Within one purpose: files and functions that index or divide a key which serves them alone.
WITHIN = {
    "lth_jax/analysis/random_tickets.py": {"random_members": "per draw"},
    "lth_jax/keys.py": {"_folded": "the purpose", "as_threefry": "key data"},
    "lth_jax/data/order.py": {"indices": "per epoch"},
    "lth_jax/landscape/connectivity.py": {"filter_direction": "per leaf", "renew_state": "batch"},
    "lth_jax/landscape/ends.py": {
        "extremes": "start, restarts",
        "_counted": "per start",
        "_pilot_start": "start, restarts",
    },
    "lth_jax/landscape/lanczos.py": {
        "_driven": "per block of steps",
        "_one_by_one": "per step",
        "_loop": "per step",
    },
    "lth_jax/population/crops.py": {
        "random_resized_crop": "per image",
        "random_box": "area, ratio, place",
    },
    "lth_jax/landscape/operators.py": {"monte_carlo_fisher": "per batch"},
    "lth_jax/landscape/quadrature.py": {"density": "per probe"},
    "lth_jax/landscape/traces.py": {"hutch_plus_plus": "sketch, rest", "_probes": "per probe"},
    "lth_jax/lottery/stability.py": {"_renewed": "per batch"},
    "lth_jax/models/adapters/equinox.py": {"from_equinox": "per example"},
    "lth_jax/models/adapters/keras.py": {"from_keras": "per variable, per generator"},
    "lth_jax/models/adapters/linen.py": {"_derived": "per stream"},
    "lth_jax/models/adapters/nnx.py": {"_streams": "per stream", "_next": "after the streams"},
    "lth_jax/models/recurrent.py": {"orthogonal_gates": "per gate"},
    "lth_jax/pruning/criteria/curvature.py": {"obd": "per draw", "_signs": "per leaf"},
    "lth_jax/pruning/criteria/weights.py": {"random": "per leaf"},
    "lth_jax/pruning/iterative.py": {"_rounds": "per round"},
    "lth_jax/pruning/masks.py": {"shuffle": "per leaf and layer"},
    "lth_jax/pruning/methods/supermasks.py": {"supermask": "per step"},
    "lth_jax/pruning/supermask.py": {"bernoulli": "per leaf", "init_scores": "per leaf"},
    "lth_jax/pruning/transforms/dynamic.py": {"sparse_evolution": "per leaf"},
    "lth_jax/pruning/transforms/subnetwork.py": {"owning": "per step"},
    "lth_jax/structure/coarsen.py": {"random_units": "per group"},
    "lth_jax/structure/regroup.py": {"shuffle_blocks": "per leaf, layer and axis"},
    "lth_jax/population/augment.py": {
        "noisy_labels": "per replicate and example",
        "mixup": "share, order",
        "cutmix": "share, order, place",
        "crop": "per image",
        "_box": "per axis",
    },
    "lth_jax/population/averaging.py": {"mean_network": "per batch"},
    "lth_jax/population/segment.py": {"train_step": "per step", "training_batch": "per step"},
    "lth_jax/population/api.py": {"_member_keys": "per member"},
}
FILES = [
    path
    for room in ("lth_jax", "experiments")
    for path in sorted((ROOT / room).rglob("*.py"))
    if "benchmarks" not in path.parts
]
SHARED = ("data_key", "init_key", "root", "noise")


def uses(path):
    """`(outermost function, name, call or None)` of each use of `jax.random.<name>` in a file."""
    tree = ast.parse(path.read_text())
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for top in tree.body:
        for node in ast.walk(top):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "jax.random":
                name = top.name if hasattr(top, "name") else "<module>"
                yield name, node.attr, calls.get(id(node))


def test_keys_are_divided_within_one_purpose_only():
    found = {}
    for path in FILES:
        text = path.read_text()
        assert "from jax import random" not in text and "from jax.random" not in text, path
        for function, name, call in uses(path):
            if name in ("fold_in", "split", "clone"):
                found.setdefault(str(path.relative_to(ROOT)), set()).add(function)
                if path.name != "keys.py":
                    parent = ast.unparse(call.args[0]).rpartition(".")[2]
                    assert parent not in SHARED, f"{path} divides {parent}, which others use"
    assert found == {file: set(functions) for file, functions in WITHIN.items()}


def test_a_seed_becomes_a_key_in_one_place_only():
    for path in FILES:
        for function, name, call in uses(path):
            if path.name != "keys.py" and name in ("key", "PRNGKey") and call is not None:
                constant = isinstance(call.args[0], ast.Constant)
                assert name == "key" and constant, f"{path}: {function} makes a key of a seed"


def test_a_renewed_state_has_streams_of_its_own():
    """The keys of the training passes of averaging and stability are no keys of training."""

    def apply(params, state, x, *, key=None, train):
        return x, jax.random.key_data(key) if train else state

    model = Model(lambda key, x: ({}, jnp.zeros(2, jnp.uint32)), apply)
    trainer = make_trainer(MLP((3,)))._replace(
        model=model, make_optimizer=lambda h: averaged(optax.sgd(0.1), start=1, every=1)
    )
    key = jax.random.key(11)
    member = segment.init_member(trainer, key, key, {"learning_rate": 0.1}, TRAIN.x[:1])
    # 48 examples: batches 0 … 2, of which the last one leaves its key as the state.
    mean = mean_network(model, 16)(member, TRAIN).state
    batches = jax.tree.map(lambda a: a.reshape(3, 16, *a.shape[1:]), TRAIN)
    line = stability._renewed(trainer, {}, member, batches)
    training = {
        pair
        for purpose in ("order", "noise", "shown")
        for pair in indexed(keys.stream(key, purpose))
    }
    renewing = {tuple(np.asarray(state).tolist()) for state in (mean, line)}
    assert len(renewing) == 2 and not renewing & (training | indexed(key))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS[1:])
def test_a_member_has_the_same_numbers_alone_and_in_a_population(impl):
    pairs = jax.random.split(jax.random.key(2, impl=impl), (3, 2))

    def start(pair):
        member = segment.init_member(TRAINER, *pair, {"learning_rate": 0.1}, TRAIN.x[:1])
        return member, segment.batch_rows(TRAINER, member, 0)

    (together, rows), alone = jax.vmap(start)(pairs), [start(pair) for pair in pairs]
    for i, (member, its_rows) in enumerate(alone):
        np.testing.assert_array_equal(rows[i], its_rows)
        np.testing.assert_array_equal(
            together.params["Dense_0"]["kernel"][i], member.params["Dense_0"]["kernel"]
        )
    assert len({str(row) for row in rows.tolist()}) == 3


def test_seeds_are_32_bits():
    ends = [keys.from_seed(seed) for seed in (0, 1, 2**31, 2**32 - 1, np.uint32(7))]
    assert len({*numbers(jnp.stack(ends))}) == 5
    for seed in (-1, 2**32, 2**70):
        with pytest.raises(ValueError, match=rf"`data.seed` is {seed}; a seed lies in"):
            keys.from_seed(seed, "data.seed")
    for seed in (1.0, True, "1", None):
        with pytest.raises(TypeError, match=r"`seed` must be an integer, got"):
            keys.from_seed(seed)


MASK = np.ones((2, 2), bool)
PAIR = (np.ones((30, 2), np.float32), np.arange(30) % 2)
TASK = Task(MLP((2,)), PAIR, optimizer=optax.sgd(0.1), batch_size=1, steps=1)
LOAD = {"data_dir": "nowhere", "validation": 10}
SEEDED = {
    "lth_jax.data.datasets.load": lambda seed: datasets.load("digits", seed=seed, **LOAD),
    "lth_jax.data.arrays.from_arrays": lambda seed: arrays.from_arrays(PAIR, seed=seed),
    "lth_jax.data.arrays.train_and_test": lambda seed: arrays.train_and_test(PAIR, seed=seed),
    "lth_jax.data.datasets.dataset_of": lambda seed: datasets.dataset_of(
        "own", PAIR, seed=seed, validation=1
    ),
    "lth_jax.lottery.run.run": lambda seed: run(TASK, imp(levels=1), seed=seed),
    "lth_jax.data.standard.stock_mnist1d": lambda data_seed: datasets.load(
        "mnist1d", seed=0, data_seed=data_seed, **LOAD
    ),
    "lth_jax.data.standard.mnist1d": lambda data_seed: datasets.load(
        "mnist1d", seed=0, data_seed=data_seed, train=10, test=5, **LOAD
    ),
    "lth_jax.data.mnist1d.generate": lambda data_seed: mnist1d.generate(data_seed),
    "lth_jax.data.standard.turned": lambda data_seed: datasets.load(
        "mnist", seed=0, data_seed=data_seed, minority=0.1, **LOAD
    ),
    "lth_jax.data.made.split": lambda seed: made.split(
        made.Examples(np.arange(3.0), np.arange(3)), test=1, seed=seed
    ),
    "lth_jax.data.planted.teacher": lambda data_seed: planted.teacher(data_seed=data_seed),
    "lth_jax.data.sequences.transitions": sequences.transitions,
    **{
        f"{make.__module__}.{make.__qualname__}": make
        for make in GENERATED.values()
        if "data_seed" in inspect.signature(make).parameters
    },
    "lth_jax.measures.recovery.chance": lambda seed: recovery.chance(
        (MASK, MASK), (MASK, MASK), seed=seed
    ),
    "lth_jax.keys.from_seed": keys.from_seed,
    "lth_jax.keys.check_seed": keys.check_seed,
}


def takers(of):
    """`{function: parameter}` of all public functions that take one of these parameters."""
    found = {}
    for module in pkgutil.walk_packages(lth_jax.__path__, "lth_jax."):
        for name, obj in vars(import_module(module.name)).items():
            own = inspect.isfunction(obj) and obj.__module__ == module.name
            if own and not name.startswith("_"):
                for parameter in inspect.signature(obj).parameters.values():
                    if of(parameter):
                        found[f"{module.name}.{name}"] = parameter.name
    return found


def test_every_seed_is_checked():
    takes = takers(lambda p: p.name in ("seed", "data_seed"))
    assert takes.keys() == SEEDED.keys()
    for function, name in takes.items():
        for seed in (-1, 2**32):
            with pytest.raises(ValueError, match=rf"^`{name}` is {seed}; a seed lies in"):
                SEEDED[function](**{name: seed})


PARAMS = {"w": jnp.arange(1.0, 7.0).reshape(2, 3), "b": jnp.ones(3)}
PRUNABLE = {"w": True, "b": False}
HALF = {"w": PARAMS["w"] > 3, "b": jnp.ones(3, bool)}
IMAGES = Batch(jnp.arange(96.0).reshape(2, 4, 4, 3), jnp.eye(2))
NUMBERS = {"mixup": 1.0, "cutmix": 1.0, "label_smoothing": 0.1, "label_noise": 0.5}
ORDER = {"steps": 2, "batch_size": 2, "size": 9}
SQUARE = jnp.array([[2.0, 1.0], [1.0, 3.0]])
QUADRATIC = operators.hessian(
    lambda w, x: 0.5 * jnp.mean(x) * jnp.sum(w**2 * jnp.arange(1.0, 4.0)),
    jnp.ones(3),
    [jnp.ones(1)],
)


class Example(NamedTuple):
    hyper: dict


def shown(step, batch=IMAGES, constants=lambda key: ()):
    member = Example(NUMBERS | {"replicate": 0})
    return lambda key: step(key, batch, jnp.arange(2), member, constants(key))


def along(iterate):
    return lambda key: iterate(jax.tree_util.Partial(jnp.matmul, SQUARE), jnp.ones(2), key, steps=2)


def of_quadratic(f, **options):
    return lambda key: f(QUADRATIC, key, **options)


def of_half(f):
    return lambda key: f(key, HALF, prunable=PRUNABLE)


def control(name):
    point = TrainState(PARAMS, {}, ())
    return lambda key: controls.CONTROLS[name](HALF, point, point, key=key, prunable=PRUNABLE)


def evolved(key):
    tx = transforms.sparse_evolution(
        optax.sgd(0.1), lambda params: HALF, Events(every=1), key=key, prunable=PRUNABLE
    )
    state = tx.init(PARAMS)._replace(step=jnp.int32(1))
    return tx.update(PARAMS, state, PARAMS)[0]


def of_member(make):
    def key_data(key):
        member = make(key)
        data = jax.random.key_data(member.data_key)
        return member.params, data

    return key_data


KEYED = {
    "data.order.indices": lambda key: indices(key, 0, **ORDER),
    "data.order.in_order": lambda key: in_order(key, 0, **ORDER),
    "landscape.connectivity.filter_direction": lambda key: filter_direction(key, PARAMS),
    "landscape.connectivity.renew_state": lambda key: renew_state(
        lambda params, state, x, key, train: (x, jax.random.normal(key)), {}, 0, [IMAGES], key=key
    ),
    "landscape.lanczos.iterate": along(lanczos.iterate),
    "landscape.lanczos.scan": along(lanczos.scan),
    "landscape.lanczos.blocked": along(lanczos.blocked),
    "landscape.lanczos.leading": along(lanczos.leading),
    "landscape.ends.extremes": of_quadratic(ends.extremes, exact_below=0),
    "landscape.quadrature.density": of_quadratic(quadrature.density, width=0.1),
    "landscape.traces.trace": of_quadratic(traces.trace),
    "landscape.traces.hutch_plus_plus": of_quadratic(traces.hutch_plus_plus, probes=3),
    "landscape.traces.diagonal": of_quadratic(traces.diagonal),
    "population.crops.random_box": lambda key: random_box(key, 90, 80, 0.1),
    "landscape.traces.frobenius_norm": of_quadratic(traces.frobenius_norm),
    "lottery.stability.member_at": of_member(
        lambda key: stability.member_at(
            TRAINER, {"learning_rate": 0.1}, PARAMS, {}, HALF, data_key=key
        )
    ),
    "pruning.masks.shuffle": of_half(masks.shuffle),
    "pruning.masks.shuffle_globally": of_half(masks.shuffle_globally),
    "pruning.supermask.bernoulli": lambda key: supermask.bernoulli(key, PARAMS, prunable=PRUNABLE),
    "pruning.supermask.init_scores": lambda key: supermask.init_scores(
        key, PARAMS, prunable=PRUNABLE
    ),
    "pruning.transforms.dynamic.sparse_evolution": evolved,
    "structure.regroup.shuffle_blocks": lambda key: shuffle_blocks(key, HALF, PRUNABLE),
    "population.augment.noisy_labels": shown(
        augment.noisy_labels(3), IMAGES._replace(y=jnp.arange(2)), lambda key: {"noise": key}
    ),
    "population.augment.smooth": shown(augment.smooth),
    "population.augment.mixup": shown(augment.mixup),
    "population.augment.cutmix": shown(augment.cutmix),
    "population.augment.flip": shown(augment.flip),
    "population.segment.init_member": of_member(
        lambda key: segment.init_member(TRAINER, key, key, {"learning_rate": 0.1}, TRAIN.x[:1])
    ),
    "population.segment.rows_of": lambda key: segment.rows_of(
        TRAINER, key, {"data_offset": 0, "replicate": 0}, 0
    ),
    "pruning.criteria.weights.random": lambda key: criteria.random()(PARAMS, HALF, key=key),
    "keys.stream": lambda key: jax.random.key_data(keys.stream(key, "order")),
    "keys.derive": lambda key: jax.random.key_data(keys.derive(key, 0, "order")),
    "keys.derive_all": lambda key: jax.random.key_data(keys.derive_all(key, [0], "order")),
}
KEYED |= {
    f"{function.__module__}.{function.__qualname__}".removeprefix("lth_jax."): control(name)
    for name, function in controls.CONTROLS.items()
}
WITHOUT = {  # they pass the key to one of those above, or to a function of the user
    "analysis.random_tickets.random_members",
    "analysis.random_tickets.random_tickets",
    "keys.as_threefry",
    "keys.check_key",
    "landscape.lanczos.compiled",
    "landscape.operators.monte_carlo_fisher",
    "landscape.step_size.at_named_points",
    "lottery.curvature.training_loss",
    "lottery.curvature.relative_sharpness_at",
    "lottery.curvature.stability_edges",
    "lottery.identity.arms_programs",
    "lottery.identity.methods_programs",
    "lottery.identity.training_program",
    "lottery.starts.one_shot_starts",
    "population.api.initial",
    "lottery.initial_states.control_arm",
    "pruning.criteria.weights.random",
    "pruning.criteria._inputs.require_key",
    "pruning.transforms.subnetwork.owning",
    "structure.coarsen.random_units",
    "population.segment.take",
}


def test_every_function_that_takes_a_key_is_listed():
    names = ("key", "init_key", "data_key", "noise", "root")
    takes = takers(lambda p: p.name in names and p.annotation in (jax.Array, Key | None))
    listed = {f"lth_jax.{name}" for name in (*KEYED, *WITHOUT)}
    assert takes.keys() <= listed, takes.keys() - listed


@pytest.mark.parametrize("function", sampled(KEYED, 2))
def test_any_implementation_works_and_a_raw_key_works_or_is_refused(function):
    draw = KEYED[function]
    for impl in IMPLEMENTATIONS:
        draw(jax.random.key(3, impl=impl))
    typed = jax.random.key(3)
    try:
        found = draw(jax.random.key_data(typed))
    except TypeError as error:
        assert re.fullmatch(r"`\w+` must be a typed [^\n]*", str(error))
    else:
        jax.tree.map(np.testing.assert_array_equal, found, draw(typed))
