"""Programs of each kind lower for CUDA and TPU, which needs no hardware.

`pytest --accelerators` does the same for each program that any test runs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks.tasks import TASKS, population, task
from lth_jax import keys, lottery, structure, trees
from lth_jax import landscape as curvature
from lth_jax.coding.quantize import dequantize, quantize
from lth_jax.landscape import lanczos
from lth_jax.models import MLP
from lth_jax.population import Plan, compile_segment
from lth_jax.population.crops import random_resized_crop
from lth_jax.population.segment import init_record
from lth_jax.pruning.methods import METHODS
from lth_jax.types import Batch
from tests.lowering import PLATFORMS, for_accelerators
from tests.pruning import test_contracts as contracts
from tests.thinning import sampled

KEY = jax.random.key(0)
X, Y = jax.random.normal(KEY, (40, 8)), jnp.arange(40) % 3
TASK = lottery.Task(MLP((8, 3)), (X, Y), optimizer=optax.sgd(0.1), batch_size=8, steps=4)


def lower(f, *args):
    """The text of the program of a function for all accelerators."""
    jitted = f if hasattr(f, "trace") else jax.jit(f)
    return jitted.trace(*args).lower(lowering_platforms=PLATFORMS).as_text()


def test_a_program_without_a_rule_for_a_platform_is_found():
    with pytest.raises(NotImplementedError, match=r"tpu|cuda"):
        lower(jnp.linalg.eigvals, jnp.eye(2))


def only_some_fast(names, fast):
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("vmapped", only_some_fast([None, 1], [None]))
@pytest.mark.parametrize("kind", only_some_fast(TASKS, ["mlp", "conv", "lstm"]))
def test_segments_of_all_families_lower(kind, vmapped):
    one = task(kind, 4)
    members = jax.eval_shape(lambda: population(one, 2))
    records = jax.eval_shape(jax.vmap(init_record), members)
    data, step = jax.eval_shape(lambda: one.data), jax.ShapeDtypeStruct((), "int32")
    some = jax.eval_shape(lambda data: trees.index(data, slice(64)), data)
    segment = compile_segment(one.trainer, Plan(2, vmapped=vmapped))
    assert "while" in lower(segment, members, records, data, some, {}, step, step)


@pytest.mark.parametrize("name", contracts.NAMES)
def test_all_criteria_lower(name):
    params, mask, given = contracts.arguments(contracts.LISTS)
    needed = {need: given[need] for need in contracts.NEEDS.get(name, ())}
    lower(lambda params, mask: contracts.CRITERIA[name]()(params, mask, **needed), params, mask)


SPECS = {
    "imp": lottery.imp(levels=1, rate=0.5),
    **{n: lottery.sparse_training(make, 0.5) for n, make in METHODS.items()},
}


@pytest.mark.parametrize(
    "name", ["imp", "rigl", *sampled([n for n in SPECS if n not in ("imp", "rigl")], 3)]
)
def test_all_programs_of_ladders_lower(name):
    """Initial values, tickets, controls, segments and measures, with each sparse method."""
    controls = lottery.CONTROLS if name == "imp" else ()
    with for_accelerators() as names:
        ladder = lottery.make_ladder(TASK, SPECS[name], controls)
        lottery.make_experiment(TASK, lottery.Seeds(keys.from_seed(0), 2), ladder)
    assert len(names) >= 4 + len(controls)


def mean_square(params, batch):
    return jnp.mean((jnp.tanh(batch.x @ params["w"]) @ params["v"]) ** 2)


PARAMS = {"w": jnp.ones((8, 5)), "v": jnp.ones((5, 2))}


def test_curvature_lowers():
    product = curvature.hessian(mean_square, PARAMS, [Batch(X, Y)])
    start = jnp.ones(product.size)
    lower(lambda v: lanczos.scan(product, v, KEY, steps=4).diagonal, start)
    lower(lambda v: product(v), start)


def test_compacted_networks_lower():
    def network(params, x):
        return jnp.tanh(x @ params["w"]) @ params["v"]

    found = structure.find_groups(network, PARAMS, X)
    units = {"v:0": np.array([True, False, True, True, False])}
    smaller, apply = structure.compact(found, PARAMS, units)
    lower(apply, smaller, X)


def test_codes_of_values_lower():
    def there_and_back(x):
        return dequantize(quantize(x, 4, channel_axis=1))

    lower(there_and_back, X)


def test_crops_lower():
    images = Batch(jnp.zeros((2, 8, 8, 3), jnp.uint8), jnp.arange(2))
    lower(lambda key: random_resized_crop()(key, images, jnp.arange(2), None, {}).x, KEY)
