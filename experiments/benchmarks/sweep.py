"""A sweep over learning rate × seed, compared with one process per cell.

    python -m experiments.benchmarks.sweep [--quick] [--rounds N] [--config FILE[:SIZE]]

Each way starts with an empty store and no compiled programs; data are prepared before. The separate
processes run two at a time, the fastest on two cores, and share a compilation cache. Both ways
write the same runs; the separate processes also write a report for each. The last line is one JSON
object; ratios are medians over rounds in which the ways take turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from experiments.benchmarks.report import main
from lth_jax.analysis.ratios import Row, row

CONFIG = "experiments/configs/mnist1d_ladder.py:smoke"
RATE, SEED = "experiment.optimizer.learning_rate", "experiment.seed"
SWEEP, OTHERS = "sweep", "processes two at a time"
GOAL = 5.0


def ways(config: str, data: Path, rates: Sequence[float], seeds: Sequence[int]) -> dict[str, Any]:
    """The ways to run the cells, as functions of an empty folder."""
    cells = [[f"--config.{RATE}={r}", f"--config.{SEED}={s}"] for r in rates for s in seeds]
    swept = [
        f"--sweep.{name}={','.join(map(str, values))}"
        for name, values in ((RATE, rates), (SEED, seeds))
    ]

    def separate(folder: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda cell: start("experiments.run", config, data, folder, cell), cells))

    return {
        SWEEP: lambda folder: start("experiments.sweep", config, data, folder, swept),
        OTHERS: separate,
    }


def start(program: str, config: str, data: Path, folder: Path, more: Sequence[str]) -> None:
    """Runs a program in a separate process, with store and cache in `folder`."""
    machine = {"workdir": folder / "runs", "data_dir": data, "progress": False}
    given = [f"--config.machine.{name}={value}" for name, value in machine.items()]
    replicates = "--config.experiment.replicates=1"
    subprocess.run(
        [sys.executable, "-m", program, f"--config={config}", *given, replicates, *more],
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def seconds(run: Callable[[Path], None]) -> float:
    """Seconds of a way from an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run(Path(folder))
        return time.perf_counter() - began


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Alternates both ways, each from an empty folder."""
    n = 2 if options.quick else 8
    rates = [round(1e-3 * 10 ** (i / 4), 6) for i in range(n)]
    times: dict[str, list[float]] = {name: [] for name in (SWEEP, OTHERS)}
    with tempfile.TemporaryDirectory() as folder:
        data, only_plan = Path(folder), [f"--sweep.{SEED}=0", "--dry_run"]
        seconds(lambda runs: start("experiments.sweep", options.config, data, runs, only_plan))
        for _ in range(options.rounds):
            for name, run in ways(options.config, data, rates, range(n)).items():
                times[name].append(seconds(run))
                print(f"{name}: {times[name][-1]:.1f} s", flush=True)
    pairs = [other / ours for ours, other in zip(times[SWEEP], times[OTHERS], strict=True)]
    case = f"{n * n} cells, learning rate × seed, {options.config}, seconds"
    ours, others = (statistics.median(times[name]) for name in (SWEEP, OTHERS))
    yield row(case, ours, {OTHERS: others}, pairs=pairs, goal=GOAL, most=False)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Rounds and config."""
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--config", default=CONFIG)


if __name__ == "__main__":
    main("sweep", __doc__, measure, add_options)
