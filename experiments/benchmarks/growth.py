"""Growth of time and memory with members, levels, cells, runs, leaves and weights.

    python -m experiments.benchmarks.growth [--quick] [--full] [--axes NAMES]

Each point runs in a separate process, whose peak memory is measured; seconds exclude imports. The
slope is that of a line through the points with at least a tenth of the largest size, on logarithmic
axes: 1 is linear. The last line is one JSON object.
"""

import argparse
import ast
import contextlib
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn
from matplotlib import ticker

from experiments import sweep
from experiments.benchmarks.report import main
from experiments.configs import mnist1d_ladder
from lth_jax import grid, lottery, population, store
from lth_jax.analysis.ratios import Row, row
from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.prune import prune
from lth_jax.report.plotting import images, style
from lth_jax.store import files

GOAL = 1.1  # the steepest slope
POINT = "--point"
SIZES: dict[str, tuple[int, ...]] = {
    "members": (1, 4, 16, 64, 256, 1024, 4096),
    "levels": (1, 3, 10, 30, 100),
    "cells": (1, 10, 100, 1000, 10_000),
    "runs": (1, 10, 100, 1000, 10_000),
    "leaves": (2, 20, 200, 2000),
    "weights": (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000),
}
USUAL = {"runs": 1000, "cells": 1000}  # the largest size without `--full`, which takes minutes
QUICK = 2  # sizes of each axis


def task() -> lottery.Task:
    """A small MLP on 200 examples."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 16)).astype(np.float32)
    model = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(2)])
    data = (x, (x[:, 0] > 0).astype(int))
    return lottery.Task(model, data, optimizer=optax.adam(1e-3), batch_size=20, steps=100)


def members(n: int) -> Callable[[], Any]:
    """Training a population of `n`."""
    plan = population.Plan(n)
    return lambda: population.train(task(), population.initial(task(), n), plan=plan)


def levels(n: int) -> Callable[[], Any]:
    """A ladder of `n` levels with two replicates, in a store."""
    spec = lottery.imp(levels=n, rate=0.04)
    return lambda: lottery.run(
        task(), spec, replicates=2, plan=population.Plan(2), progress=False
    ).table()


def cells(n: int) -> Callable[[], Any]:
    """The dry run of a sweep over `n` seeds."""
    config = mnist1d_ladder.get_config("smoke")

    def plan() -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            config.machine.workdir = folder
            seeds = grid.sweep("experiment.seed", range(n))
            sweep.dry_run(config, list(sweep.cells(config, seeds)))

    return plan


def runs(n: int) -> Callable[[], Any]:
    """Lists `n` finished runs, and finds one."""
    folder = tempfile.TemporaryDirectory()
    for i in range(n):
        with store.open_run(folder.name, name=f"run{i}", config={"i": i}, env={}) as run:
            run.finish()

    def look() -> None:
        store.list_runs(folder.name)
        store.find_run(folder.name, f"run{n - 1}-")

    return look


def leaves(n: int) -> Callable[[], Any]:
    """Pruning a network of `n` kernels of 16 × 16, the first call and 10 more."""
    return pruned({f"layer{i}": {"kernel": jnp.full((16, 16), i + 1.0)} for i in range(n)}, 11)


def weights(n: int) -> Callable[[], Any]:
    """Pruning a kernel of `n` weights by magnitude, the first call and 2 more."""
    return pruned({"kernel": jax.random.normal(jax.random.key(0), (n // 100, 100))}, 3)


def pruned(params: Any, times: int) -> Callable[[], Any]:
    """Pruning parameters by magnitude over the whole network, several times."""
    prunable, scope = masks.prunable_leaves(params), scopes.globally()
    whole = masks.ones_like(params)

    def work() -> Any:
        pruner = prune(criteria.magnitude(), scope)
        count = scope.counts(params, 0.5, prunable=prunable)
        return [pruner(params, whole, count, prunable=prunable) for _ in range(times)]

    return work


AXES: dict[str, Callable[[int], Callable[[], Any]]] = {
    "members": members,
    "levels": levels,
    "cells": cells,
    "runs": runs,
    "leaves": leaves,
    "weights": weights,
}


def point(axis: str, size: int) -> dict[str, float]:
    """Seconds and the peak memory of this process."""
    work = AXES[axis](size)
    began = time.perf_counter()
    jax.block_until_ready(work())
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measured(axis: str, size: int) -> dict[str, float]:
    """`point` in a separate process."""
    command = [sys.executable, "-m", "experiments.benchmarks.growth", POINT, axis, str(size)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    numbers: dict[str, float] = ast.literal_eval(found.stdout.splitlines()[-1])
    print(f"{axis} {size}: {numbers['seconds']:.3g} s, {numbers['mib']:.0f} MiB", flush=True)
    return numbers


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope on logarithmic axes over the last decade of sizes.

    >>> round(slope([1, 10, 100], [5.0, 10.0, 100.0]), 6)
    1.0
    """
    x, y = np.log(sizes), np.log(values)
    last = x >= x[-1] - np.log(10) - 1e-9
    return float(np.polyfit(x[last], y[last], 1)[0])


@style()
def drawn(found: dict[str, dict[int, dict[str, float]]], folder: Path) -> None:
    """One picture: seconds and memory against each size. Dashed: linear growth."""
    figure, panes = plt.subplots(
        2, len(found), figsize=(2.6 * len(found), 4.4), layout="constrained", squeeze=False
    )
    for (axis, points), column in zip(found.items(), panes.T, strict=True):
        sizes = np.array(list(points))
        for axes, what in zip(column, ("seconds", "mib"), strict=True):
            values = np.array([one[what] for one in points.values()])
            axes.plot(sizes, values[-1] * sizes / sizes[-1], "--", color="#666666", linewidth=0.9)
            axes.plot(sizes, values, "o-")
            # At least a decade, so that noise does not look like growth.
            axes.set(xscale="log", yscale="log", ylim=(values.min() / 3, values.max() * 3))
            axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        column[1].set_xlabel(axis)
    panes[0, 0].set_ylabel("seconds")
    panes[1, 0].set_ylabel("peak memory, MiB")
    for kind, picture in images(figure).items():
        files.write(folder / f"growth.{kind}", picture)
    plt.close(figure)


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """All points of all axes, each in a separate process; then the figure."""
    found = {}
    for axis in options.axes.split(","):
        sizes = [n for n in SIZES[axis] if options.full or n <= USUAL.get(axis, n)]
        points = {n: measured(axis, n) for n in sizes[: QUICK if options.quick else None]}
        found[axis] = points
        slopes = {
            what: slope(list(points), [one[what] for one in points.values()])
            for what in ("seconds", "mib")
        }
        yield row(
            f"growth with {axis}",
            points[max(points)]["seconds"],
            goal=GOAL,
            judged=max(slopes.values()),
            slopes=slopes,
            points={str(size): one for size, one in points.items()},
        )
    drawn(found, options.figures)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Axes, the largest sizes, and the folder of the picture."""
    parser.add_argument("--full", action="store_true", help="the largest sizes too")
    parser.add_argument("--axes", default=",".join(SIZES), help="which, by commas; all by default")
    parser.add_argument("--figures", type=Path, default=Path("runs/benchmarks"))


if __name__ == "__main__":
    if sys.argv[1:2] == [POINT]:
        print(point(sys.argv[2], int(sys.argv[3])))
    else:
        main("growth", __doc__, measure, add_options)
