"""Training speed of a population, compared with other ways to train the same networks.

Four tasks: LeNet-300-100 (16 members), three convolutional layers, a small Transformer and a small
LSTM (8 each), float32, Adam, each member with its own weights, mask and batches. Values are
member-steps per second; a ratio is the median over rounds of (ours / alternative), where each round
runs all ways. Ours is the plan of `choose_plan`.

Every call continues training, so that no copies are timed. The bound of the dense task is computed
from the measured peak of matrix products and one pass over Adam's memory in cache.

    python -m experiments.benchmarks.population [--quick] [--tasks mlp,conv] [--figures FOLDER]
"""

import argparse
import dataclasses
import importlib.util
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax import lax

from experiments.benchmarks.report import main
from experiments.benchmarks.tasks import DENSITY, RATE, Task, population, task
from lth_jax import machine, trees
from lth_jax.analysis.ratios import OURS, Row, beside, row
from lth_jax.population import Member, Plan, candidate_plans, choose_plan, compile_segment
from lth_jax.population.segment import batch_rows, init_record
from lth_jax.population.train_chunks import chunks
from lth_jax.pruning.masks import apply_mask
from lth_jax.report.plotting import image
from lth_jax.store import files
from lth_jax.timing import alternated

ONE, STACKED = "PyTorch one by one, fused Adam", "torch.func.vmap, fused Adam"
NAIVE, MAP, LOOP = "naive jit(vmap(scan))", "lax.map over members", "our single-member loop"
FLOOR, BEST = "the machine's floor", "the best plan"
GOALS: dict[str, dict[str, float]] = {
    "mlp": {ONE: 1.5, STACKED: 1.1, FLOOR: 0.7, BEST: 0.9},
    "conv": {ONE: 1.0, STACKED: 2.5, NAIVE: 5.0, BEST: 0.9},
    "transformer": {ONE: 1.2, STACKED: 1.2, BEST: 0.9},
    "lstm": {ONE: 1.2, STACKED: 1.2, BEST: 0.9},
}


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to train: a function, and the member-steps of a call."""

    run: Callable[[], Any]
    work: float


Rates = dict[str, list[float]]


def rates_of(ways: Mapping[str, Way], rounds: int) -> Rates:
    """Member-steps per second of every way in every round."""
    seconds = alternated({name: way.run for name, way in ways.items()}, rounds)
    return {name: [ways[name].work / s for s in each] for name, each in seconds.items()}


def our_way(task: Task, members: Member, plan: Plan) -> Way:
    """The population in chunks of a plan; each call continues training."""
    segment = compile_segment(task.trainer, plan)
    n, steps = members.alive.shape[0], task.trainer.eval_every
    nothing = trees.index(task.data, slice(0))

    @jax.jit
    def start(rows: jax.Array) -> Any:
        chunk = trees.index(members, rows)
        return chunk, jax.vmap(init_record)(chunk)

    standing = [start(rows) for rows in chunks(n, plan.chunk)]

    def run() -> list[Any]:
        for i, (chunk, records) in enumerate(standing):
            after = segment(chunk, records, task.data, nothing, {}, np.int32(0), np.int32(steps))
            standing[i] = after[:2]
        return standing

    return Way(run, n * steps)


def textbook(task: Task, member: Member) -> Any:
    """A member's textbook training: the mask in the forward pass, plain Adam."""
    rows = batch_rows(task.trainer, member, 0)
    adam = optax.adam(RATE)

    def step(carry: Any, row: jax.Array) -> Any:
        params, state = carry
        batch = trees.index(task.data, row)

        def loss(params: Any) -> jax.Array:
            sparse = apply_mask(member.mask, params)
            out, _ = task.trainer.model.apply(sparse, {}, batch.x, train=True)
            return jnp.mean(task.trainer.loss(out, batch.y))

        updates, state = adam.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    return lax.scan(step, (member.params, adam.init(member.params)), rows)[0][0]


def textbook_ways(task: Task, members: Member) -> dict[str, Way]:
    """`jit(vmap(scan))` and `lax.map`; the former uses XLA's convolutions."""
    stock = task._replace(trainer=task.trainer._replace(model=task.stock))
    vmapped = jax.jit(jax.vmap(lambda m: textbook(stock, m)))
    mapped = jax.jit(lambda ms: lax.map(lambda m: textbook(task, m), ms))
    work = members.alive.shape[0] * task.trainer.eval_every
    return {NAIVE: Way(lambda: vmapped(members), work), MAP: Way(lambda: mapped(members), work)}


def torch_ways(task: Task, members: Member) -> dict[str, Way]:
    """The same networks in PyTorch, if installed."""
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: no PyTorch columns", flush=True)
        return {}
    from experiments.benchmarks import torch_networks

    rows = np.asarray(jax.vmap(lambda m: batch_rows(task.trainer, m, 0))(members))
    torch_networks.check(task, members, rows)
    some = jax.tree.map(lambda a: a[:2], members)
    alone = torch_networks.one_by_one(task, some, rows[:2])
    together = torch_networks.stacked(task, members, rows)
    steps = task.trainer.eval_every
    ways = {}
    for n in torch_networks.thread_counts():
        ways[f"{ONE}, {n} threads"] = Way(torch_networks.threaded(alone, n), 2 * steps)
        ways[f"{STACKED}, {n} threads"] = Way(
            torch_networks.threaded(together, n), len(rows) * steps
        )
    return ways


def floor_ways(task: Task, members: Member) -> dict[str, Way]:
    """Large matrix products only, and passes over one member's Adam arrays in cache only.

    The former are counted in the multiplications of a member-step, so that both are rates.
    """
    side, repeats = 1024, 4
    a = jnp.ones((side, side))
    product = jax.jit(lambda a: lax.fori_loop(0, repeats, lambda _, b: a @ b / side, a))
    kernels = [leaf for leaf in jax.tree.leaves(members.params) if leaf.ndim == 3]
    weights = [leaf.shape[1] * leaf.shape[2] for leaf in kernels]
    # Forward, gradient of the weights, and of the inputs in all layers but the first.
    multiplications = task.batch * (3 * sum(weights) - max(weights))
    passes, size = 16, sum(leaf[0].size for leaf in jax.tree.leaves(members.params))

    def adam(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        p, m, v, g = arrays
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return p - RATE * m * lax.rsqrt(v + 1e-8), m, v, g

    arrays = tuple(jnp.full(size, 0.1 * (i + 1)) for i in range(4))
    updates = jax.jit(lambda arrays: lax.fori_loop(0, passes, lambda _, a: adam(a), arrays))

    return {
        "products": Way(lambda: product(a), repeats * side**3 / multiplications),
        "Adam": Way(lambda: updates(arrays), passes),
    }


def best(rates: Rates, names: Iterable[str]) -> list[float]:
    """The rates of the fastest of some ways."""
    return rates[max(names, key=lambda name: statistics.median(rates[name]))]


def compare(task: Task, rounds: int, quick: bool) -> list[Row]:
    """All rows of one task."""
    members = population(task, task.members)
    plans = candidate_plans([task.members], jax.local_device_count())
    plans = plans[:2] if quick else plans
    nothing = trees.index(task.data, slice(0))
    chosen, evidence = choose_plan(
        task.trainer, members, task.data, nothing, [task.members], candidates=plans
    )
    print(f"{task.name}: {chosen} of {len(evidence)} measured plans", flush=True)
    floors = floor_ways(task, members) if task.kind == "mlp" else {}
    measured = {plan: our_way(task, members, plan) for plan in plans}
    measured[Plan(1)] = our_way(task, members, Plan(1))
    rates = rates_of(
        {
            **{str(plan): way for plan, way in measured.items()},
            **textbook_ways(task, members),
            **torch_ways(task, members),
            **floors,
        },
        rounds,
    )
    rates[OURS] = rates[str(chosen)]
    rates[LOOP] = rates[str(Plan(1))]
    rates[BEST] = best(rates, map(str, plans))
    for name in (ONE, STACKED):
        if found := [key for key in rates if key.startswith(name)]:
            rates[name] = best(rates, found)
    if floors:
        pairs = zip(rates["products"], rates["Adam"], strict=True)
        rates[FLOOR] = [1 / (1 / product + 1 / adam) for product, adam in pairs]
    case = f"{task.name}, {task.members} members"
    names = (NAIVE, MAP, LOOP, ONE, STACKED, FLOOR, BEST)
    return [
        beside(f"{case} beside {name}", rates, name, goal=GOALS[task.kind].get(name), most=False)
        for name in names
        if name in rates
    ]


def curves(steps: int, rounds: int, folder: Path) -> list[Row]:
    """Cost of the dense task against members and density, as figure and rows."""
    lenet = task("mlp", steps)

    def by_members(n: int, devices: int, vmapped: int | None) -> Way:
        return our_way(lenet, population(lenet, n), Plan(n, "scan", min(n, devices), vmapped))

    numbers, there = (1, 2, 4, 8, 16, 32, 64), 2 ** (jax.local_device_count().bit_length() - 1)
    panels: dict[str, dict[str, dict[float, Way]]] = {
        "members": {
            "vectorised": {n: by_members(n, 1, None) for n in numbers},
            f"in turn on {there} devices": {n: by_members(n, there, 1) for n in numbers},
        },
        "density": {
            "8 vectorised": {
                d: our_way(lenet, population(lenet, 8, d), Plan(8))
                for d in (0.02, 0.1, DENSITY, 0.5, 1.0)
            }
        },
    }
    rows = []
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
    for axis, (what, lines) in zip(axes, panels.items(), strict=True):
        for label, ways in lines.items():
            cost = draw(axis, label, ways, rounds)
            rows.append(row(f"ms per member-step against {what}, {label}", cost))
        axis.set(xlabel=what, xscale="log", ylim=(0, None))
        axis.legend()
    axes[0].set_ylabel("ms per member-step")
    for kind in ("png", "svg"):
        files.write(folder / f"population.{kind}", image(figure, kind))
    plt.close(figure)
    return rows


def draw(axis: Any, label: str, ways: Mapping[float, Way], rounds: int) -> dict[str, float]:
    """One line, median and range over the rounds; returns the medians in milliseconds."""
    rates = rates_of({str(x): way for x, way in ways.items()}, rounds)
    costs = [[1e3 / rate for rate in rates[str(x)]] for x in ways]
    middle = [statistics.median(c) for c in costs]
    axis.fill_between(list(ways), [min(c) for c in costs], [max(c) for c in costs], alpha=0.2)
    axis.plot(list(ways), middle, marker="o", label=label)
    return {str(x): cost for x, cost in zip(ways, middle, strict=True)}


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """The rows of each task, then the curves."""
    machine.make_cpu_devices(machine.cores())
    quick = options.quick
    kinds = (options.tasks or ("mlp" if quick else ",".join(GOALS))).split(",")
    steps, rounds = (10, 3) if quick else (50, 9)
    for kind in kinds:
        yield from compare(task(kind, steps if kind != "conv" else steps // 5), rounds, quick)
    if not quick:
        yield from curves(steps, rounds, options.figures)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Tasks and the folder of figures."""
    parser.add_argument("--tasks", help="which, by commas; all, or `mlp` if quick, by default")
    parser.add_argument("--figures", type=Path, default=Path("runs/benchmarks"))


if __name__ == "__main__":
    main("population", __doc__, measure, add_options)
