"""What a notebook shows of any public object is short, however large the object is."""

import dataclasses
import importlib
import inspect
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lth_jax as lth
from lth_jax import lottery, population
from lth_jax.report import compare, sweeps
from tests.report import synthetic

PACKAGES = (
    "analysis coding data distributed landscape layouts lottery measures models population report "
    "store structure pruning.criteria pruning.granularity pruning.methods pruning.schedules "
    "pruning.supermask pruning.transforms"
)
LONGEST = 2_000
BIG = {f"layer_{i}": {"kernel": np.ones((300, 300)), "bias": [1.0] * 500} for i in range(50)}
SCALARS = (int, float, str, bool, type(None))


def public_classes():
    """Every class that a public package exports, by name."""
    modules = [lth, *(importlib.import_module(f"lth_jax.{name}") for name in PACKAGES.split())]
    names = [
        (module, name) for module in modules for name in getattr(module, "__all__", dir(module))
    ]
    objects = [getattr(module, name) for module, name in names if not name.startswith("_")]
    found = {one for one in objects if inspect.isclass(one) and "lth_jax" in one.__module__}
    return sorted(found, key=lambda one: f"{one.__module__}.{one.__qualname__}")


def fields_of(one):
    """The fields of a named tuple or data class; none for other classes, and for networks."""
    if issubclass(one, nn.Module):
        return ()
    if dataclasses.is_dataclass(one):
        return [field.name for field in dataclasses.fields(one)]
    return getattr(one, "_fields", ())


def is_scalar(hint):
    return hint in SCALARS or (
        typing.get_args(hint) and all(each in SCALARS for each in typing.get_args(hint))
    )


def has_own_repr(one):
    """Whether a class shows more, or less, than all of its fields."""
    return one.__repr__.__module__ == one.__module__ and "<locals>" not in one.__repr__.__qualname__


RECORDS = [
    one
    for one in public_classes()
    if fields_of(one)
    and not has_own_repr(one)
    and not all(is_scalar(hint) for hint in typing.get_type_hints(one).values())
]


@pytest.mark.parametrize("one", RECORDS, ids=lambda one: one.__name__)
def test_records_of_large_things_are_short(one):
    made = object.__new__(one) if dataclasses.is_dataclass(one) else None
    if made is None:
        made = one(*[BIG] * len(one._fields))
    else:
        for name in fields_of(one):
            object.__setattr__(made, name, BIG)
    assert len(repr(made)) < LONGEST and one.__name__ in repr(made)


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Large objects of the classes that have a `repr` of their own."""
    root = tmp_path_factory.mktemp("runs")
    info = synthetic.write(root, nodes=synthetic.ladder(levels=24, replicates=1))
    result = lth.load_run(info)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    task = lottery.Task(
        nn.Dense(2), (x, (x[:, 0] > 0).astype(int)), optimizer=optax.sgd(0.1), batch_size=4, steps=9
    )
    members = population.initial(task, 8)
    params = {f"layer_{i}": {"kernel": jnp.ones((30, 30))} for i in range(100)}
    apply = lambda p, x: jax.tree.reduce(lambda y, w: jnp.tanh(y @ w), p, x)  # noqa: E731
    structure = lth.structure.find_groups(
        apply, {k: v for k, v in list(params.items())[:30]}, jnp.ones((1, 30))
    )
    rows = [
        {"run": f"cell-{i}", "rate": i, "arm": "ticket", "level": 1, "replicate": 0}
        | {"density": 0.5, "metric": "test_accuracy_final", "value": 0.5}
        for i in range(400)
    ]
    sweep = lottery.SweepResult(None, root)
    sweep.record = sweeps.SweepRecord("demo", {f"cell-{i}": {"rate": i} for i in range(400)}, rows)
    atlas = lottery.Atlas(root)
    atlas.studies = [{"claim": f"C{i}", "title": "words " * 9} for i in range(300)]
    return {
        "result": result,
        "table": result.table(),
        "seeds": result.seeds(),
        "ticket": result.ticket(3),
        "record": result.record,
        "info": result.info,
        "comparison": compare.compare([result.record, result.record]),
        "task": task,
        "spec": lottery.imp(levels=400),
        "members": members,
        "structure": structure,
        "group": structure.groups[0],
        "summary": lth.summary(params),
        "sweep": sweep,
        "atlas": atlas,
    }


def test_results_of_large_things_are_short(things):
    lengths = {name: len(repr(thing)) for name, thing in things.items()}
    assert {name: n for name, n in lengths.items() if not 0 < n < LONGEST} == {}
    assert not [name for name, thing in things.items() if "0x" in repr(thing)]


def test_what_is_left_out_is_counted_and_printed(things):
    table, summary, structure = things["table"], things["summary"], things["structure"]
    assert "more rows" in repr(table) and "more rows" not in str(table)
    assert "88 more leaves" in repr(summary) and str(summary).count("\n") == 100 + 2
    assert "prunable" in repr(summary).splitlines()[-2]
    assert str(structure).count("\n") == len(structure.groups)
