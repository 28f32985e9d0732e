"""Numerics, speed, memory and curvature of a device, in at most 8 minutes.

    experiments/benchmarks/device.sh [--commit-results]
    python -m experiments.benchmarks.device [--quick] [--parts tests,memory]

Parts: numeric tests; member-steps per second of populations of four families, beside PyTorch where
it is installed, and in bfloat16; the memory of programs beside the planner's estimate; the steps of
LeNet-300-100's recipe; two rounds of pruning ResNet-20; Hessian spectra. Every part is a process
with a time limit. A measurement that fails, does not fit or is not reached gives a row with a
reason. The last line is one JSON object.
"""

import argparse
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import device_tests
from experiments.benchmarks.population import ONE, STACKED, Way, our_way, rates_of
from experiments.benchmarks.report import main
from experiments.benchmarks.tasks import DENSITY, RATE, Task, population, task
from lth_jax import machine, models, trees
from lth_jax import population as engine
from lth_jax.analysis.ratios import OURS, Row, beside, beside_each, row
from lth_jax.lottery import imp, run
from lth_jax.population.planning import program_bytes
from lth_jax.population.segment import batch_rows, init_record

KINDS = ("mlp", "conv", "resnet", "transformer")
MEMBERS = (1, 64, 4096, 16, 256, 1024, 4)  # a time limit cuts the middle, not the ends
MOST = 256
"""The largest number of members in PyTorch, where their batches are stored."""


def family(kind: str, quick: bool) -> Task:
    """A task by kind; the residual network has a single stage if quick."""
    one = task(kind, 2 if quick else 20)
    if not (quick and kind == "resnet"):
        return one
    small = models.from_linen(models.ResNet((1,), 4))
    return one._replace(name="small ResNet, batch 32", trainer=one.trainer._replace(model=small))


def attempt(case: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a measurement, or one row with the reason why there are none."""
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:  # XLA's errors, such as too little memory
        return [failed(case, error)]


def failed(case: str, error: Exception) -> Row:
    """The row of a measurement without a result, with the first line of its error."""
    return row(case, None, reason=f"{type(error).__name__}: {error}".splitlines()[0][:300])


def throughput(kind: str, quick: bool) -> Iterator[Row]:
    """Member-steps per second against the number of members."""
    one = family(kind, quick)
    reduced = (1, 4) if kind == "mlp" else (2,)
    for n in reduced if quick else MEMBERS:
        yield from attempt(f"{one.name}, population of {n}", partial(rates, one, n, quick))


def rates(one: Task, n: int, quick: bool) -> list[Row]:
    """Ours in float32 and bfloat16, and PyTorch one by one and stacked."""
    members = population(one, n)
    half = models.compute_in(one.trainer.model, jnp.bfloat16)
    narrow = one._replace(trainer=one.trainer._replace(model=half))
    plan = engine.Plan(n)
    check_fits(estimate(one, n)[0])
    ways = {OURS: our_way(one, members, plan), "bfloat16": our_way(narrow, members, plan)}
    found = rates_of(ways | torch_ways(one, members), 1 if quick else 3)
    case = f"{one.name}, population of {n}, member-steps/s"
    rows = [
        beside(f"{case}, beside {other}", found, other, most=False)
        for other in (ONE, STACKED)
        if other in found
    ]
    rows = rows or [row(case, float(np.median(found[OURS])))]
    return [*rows, beside(f"{case}, bfloat16 beside float32", found, OURS, "bfloat16")]


def check_fits(needed: int | None) -> None:
    """Raises `MemoryError` if the free memory is less than a program needs."""
    free = engine.free_bytes()
    if needed and free and needed > free:
        raise MemoryError(f"needs {machine.in_units(needed)}, {machine.in_units(free)} are free")


def torch_ways(one: Task, members: engine.Member) -> dict[str, Way]:
    """PyTorch on its device: one member of the population alone, and all stacked."""
    n = len(members.alive)
    if importlib.util.find_spec("torch") is None or n > MOST:
        return {}
    from experiments.benchmarks import torch_networks

    rows = np.asarray(jax.vmap(lambda m: batch_rows(one.trainer, m, 0))(members))
    torch_networks.check(one, members, rows)
    threads = torch_networks.thread_counts()[-1]
    alone = torch_networks.one_by_one(one, trees.index(members, slice(1)), rows[:1])
    stacked = torch_networks.stacked(one, members, rows)
    steps = one.trainer.eval_every
    return {
        ONE: Way(torch_networks.threaded(alone, threads), steps),
        STACKED: Way(torch_networks.threaded(stacked, threads), n * steps),
    }


def estimate(one: Task, n: int) -> tuple[int | None, Any]:
    """The bytes that the planner assumes for a segment of n members, and XLA's analysis."""
    chunk = jax.eval_shape(lambda: population(one, n))
    given = (chunk, jax.eval_shape(jax.vmap(init_record), chunk), one.data)
    empty = trees.index(one.data, slice(0))
    segment: Any = engine.compile_segment(one.trainer, engine.Plan(n))
    program = segment.lower(*given, empty, {}, np.int32(0), np.int32(1)).compile()
    return program_bytes(program), program.memory_analysis()


def memory(quick: bool) -> Iterator[Row]:
    """The planner's estimate beside the peak of the device, or of XLA's analysis without one."""
    for kind in KINDS[:1] if quick else KINDS[::2]:
        one = family(kind, quick)
        for n in (1, 4) if quick else (16, 256, 1024):
            yield from attempt(f"{one.name}, population of {n}, memory", partial(peak, one, n))


def peak(one: Task, n: int) -> list[Row]:
    """One row: MiB of the estimate beside those of the peak."""
    needed, analysis = estimate(one, n)
    if needed is None:
        raise ValueError("the backend has no analysis of memory")
    check_fits(needed)
    source, top = "peak by XLA's analysis", analysis.peak_memory_in_bytes
    way = our_way(one, population(one, n), engine.Plan(n))
    jax.block_until_ready(way.run())
    if stats := jax.devices()[0].memory_stats():
        source, top = "peak of the device", stats["peak_bytes_in_use"]
    case = f"{one.name}, population of {n}: MiB by the planner beside the {source}"
    return [beside(case, {OURS: [needed / 2**20], source: [top / 2**20]}, source)]


def images(examples: int, shape: tuple[int, ...]) -> dict[str, tuple[Any, Any]]:
    """Random splits: training data, and a tenth of it for validation and for tests."""
    rng = np.random.default_rng(0)
    sizes = {"train": examples, "validation": examples // 10, "test": examples // 10}
    return {
        name: (rng.normal(size=(n, *shape)).astype(np.float32), np.arange(n) % 10)
        for name, n in sizes.items()
    }


def recipe(quick: bool) -> Iterator[Row]:
    """LeNet-300-100, 5 replicates of 4 arms: some steps, extrapolated to a level of 50,000."""
    every, steps = (2, 6) if quick else (100, 5000)
    lenet = engine.Task(
        models.MLP(),
        images(600 if quick else 55_000, (28, 28)),
        optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
        hyper={"learning_rate": RATE},
        batch_size=60,
        steps=steps,
        eval_every=every,
    )
    key, plan = jax.random.key(0), engine.Plan(20)
    masks = jax.tree.map(
        lambda leaf: jax.random.bernoulli(key, DENSITY, leaf.shape), lenet.shapes[0]
    )
    members, _ = engine.train(lenet, engine.initial(lenet, 20, masks=masks), steps=every, plan=plan)
    began = time.perf_counter()
    engine.train(lenet, members, start=every, plan=plan)
    rate = (steps - every) / (time.perf_counter() - began)
    case = "LeNet-300-100, 5 replicates of 4 arms"
    yield row(f"{case}: steps/s", rate, members=20, steps=steps - every)
    yield row(f"{case}: minutes of a level of 50,000 steps", 50_000 / rate / 60)


def levels(quick: bool) -> Iterator[Row]:
    """ResNet-20 through `lottery.run`: dense networks, then two rounds of pruning."""
    steps, replicates, rounds = (2, 1, 2) if quick else (200, 3, 2)
    network = models.ResNet((1,), 4) if quick else models.ResNet((3, 3, 3), 16)
    resnet = engine.Task(
        network,
        images(100 if quick else 5000, (32, 32, 3)),
        optimizer=optax.sgd(0.03, momentum=0.9, nesterov=True),
        batch_size=8 if quick else 128,
        steps=steps,
        eval_every=steps // 2,
    )
    began = time.perf_counter()
    plan = engine.Plan(replicates)
    result = run(resnet, imp(levels=rounds), replicates=replicates, plan=plan, progress=False)
    seconds = time.perf_counter() - began
    densities = sorted({found["density"] for found in result.table("test_loss")})
    case = f"{'small ResNet' if quick else 'ResNet-20'}, two rounds of pruning: seconds"
    work = (rounds + 1) * replicates * steps
    yield row(case, seconds, member_steps=work, densities=densities)


def curvature(quick: bool) -> Iterator[Row]:
    """The largest eigenvalue to 1e-3, and 64 Lanczos steps beside a plain scan."""
    # Imported here: the module makes arrays, and this process must leave the device to the parts.
    from experiments.benchmarks import landscape
    from lth_jax.landscape import extremes, hessian, lanczos

    for case in landscape.cases(quick)[: 1 if quick else 2]:
        operator = hessian(case.loss, case.params, [case.batch])

        def top(key: int, operator: Any = operator) -> Any:
            return extremes(operator, jax.random.key(key), smallest=0, exact_below=0)

        top(0)  # compiles
        began = time.perf_counter()
        found = top(1)
        seconds, value = time.perf_counter() - began, float(found.largest[0])
        bound = float(found.largest_bounds[0]) / value
        yield row(f"λmax, {case.name}, seconds", seconds, value=value, relative_bound=bound)
        start = jax.random.normal(landscape.KEY, (operator.size,))
        drive, loss = lanczos.driver(operator, start), case.usual or case.loss
        plain = landscape.ways_to_tridiagonalise(loss, case, start)[landscape.SCAN]
        ours = partial(drive, operator, start, landscape.KEY, steps=landscape.STEPS)
        pairs = 1 if quick else 3
        name = f"{landscape.STEPS} Lanczos steps, {case.name}"
        yield from beside_each(name, ours, {landscape.SCAN: plain}, pairs)


Part = Callable[[bool], Iterator[Row]]
PARTS: dict[str, tuple[Part, float]] = {
    "tests": (device_tests.rows, 50),
    **{f"throughput-{kind}": (partial(throughput, kind), 50) for kind in KINDS},
    "memory": (memory, 40),
    "recipe": (recipe, 45),
    "levels": (levels, 60),
    "curvature": (curvature, 60),
}
"""By name: the rows if quick or not, and the limit in seconds, with the start of the process."""


def _send(names: Sequence[str], quick: bool, pipe: Connection) -> None:
    """The process of some parts: sends their rows, then None."""
    machine.cache_compiled_programs()
    for name in names:
        try:
            for found in PARTS[name][0](quick):
                pipe.send(found)
        except Exception as error:  # a row, since the parts after it must still run
            pipe.send(failed(name, error))
    pipe.send(None)


def limited(names: Sequence[str], quick: bool, limit: float) -> Iterator[Row]:
    """The rows of parts in a process of their own, and one with a reason if it ends early."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(names, quick, theirs))
    end = time.monotonic() + limit
    process.start()
    theirs.close()
    try:
        while ours.poll(max(end - time.monotonic(), 0)):
            found = ours.recv()
            if found is None:
                return
            yield found
        yield failed(", ".join(names), TimeoutError(f"the rest was not reached in {limit:g} s"))
    except EOFError:
        process.join()
        yield failed(", ".join(names), EOFError(f"exit code {process.exitcode}"))
    finally:
        process.kill()
        process.join()


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """The rows of all parts, each in its own process; quick ones share one."""
    names = options.parts.split(",")
    if unknown := {*names} - {*PARTS}:
        raise ValueError(f"`--parts` has {sorted(unknown)}; there are {list(PARTS)}.")
    for group in [names] if options.quick else [[name] for name in names]:
        limit = sum(PARTS[name][1] for name in group)
        yield from limited(group, options.quick, limit)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The parts."""
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")


if __name__ == "__main__":
    main("device", __doc__, measure, add_options)
