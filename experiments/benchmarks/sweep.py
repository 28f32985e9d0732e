"""A sweep over learning rate × seed, end to end, beside the same cells as processes of their own.

    python -m experiments.benchmarks.sweep [--quick] [--rounds N] [--config FILE[:SIZE]]

Each way starts with no store and no compiled programs; the data are prepared before. The separate
processes run two at a time, which is the fastest on two cores, and share one cache of compiled
programs, which the first of them fill. Both ways write the same runs; only the separate ones draw a
page for each. The last line is one JSON object; ratios are medians over rounds in which the ways
take turns.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

CONFIG = "experiments/configs/mnist1d_ladder.py:smoke"
RATE, SEED = "experiment.optimizer.learning_rate", "experiment.seed"
OURS, OTHERS = "sweep", "processes two at a time"
GOAL = 5.0


def ways(config: str, data: Path, rates: Sequence[float], seeds: Sequence[int]) -> dict[str, Any]:
    """Every way to run the cells, as functions of a folder that is empty."""
    cells = [[f"--config.{RATE}={r}", f"--config.{SEED}={s}"] for r in rates for s in seeds]
    swept = [
        f"--sweep.{name}={','.join(map(str, values))}"
        for name, values in ((RATE, rates), (SEED, seeds))
    ]

    def separate(folder: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda cell: start("experiments.run", config, data, folder, cell), cells))

    return {
        OURS: lambda folder: start("experiments.sweep", config, data, folder, swept),
        OTHERS: separate,
    }


def start(program: str, config: str, data: Path, folder: Path, more: Sequence[str]) -> None:
    """Runs a program in a process of its own, with its store and its cache in `folder`."""
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
    """How long a way takes from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run(Path(folder))
        return time.perf_counter() - began


def result(case: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """The comparison as the benchmarks' JSON has it."""
    ratios = [other / ours for ours, other in zip(times[OURS], times[OTHERS], strict=True)]
    ratio = statistics.median(ratios)
    return {
        "case": case,
        "ours": statistics.median(times[OURS]),
        "alternatives": {OTHERS: statistics.median(times[OTHERS])},
        "ratio": ratio,
        "spread": [min(ratios), max(ratios)],
        "goal": GOAL,
        "met": ratio >= GOAL,
    }


def main() -> None:
    """Prints the seconds of every way and round, and the JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 cells instead of 64")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--config", default=CONFIG)
    options = parser.parse_args()
    n = 2 if options.quick else 8
    rates = [round(1e-3 * 10 ** (i / 4), 6) for i in range(n)]
    times: dict[str, list[float]] = {name: [] for name in (OURS, OTHERS)}
    with tempfile.TemporaryDirectory() as data:
        found = ways(options.config, Path(data), rates, range(n))
        seconds(
            lambda folder: start(
                "experiments.sweep",
                options.config,
                Path(data),
                folder,
                [
                    f"--sweep.{SEED}=0",
                    "--dry_run",
                ],
            )
        )  # prepares the data
        for _ in range(options.rounds):
            for name, run in found.items():
                times[name].append(seconds(run))
                print(f"{name}: {times[name][-1]:.1f} s", flush=True)
    machine = f"{platform.processor() or platform.machine()}, {jax.devices()[0].device_kind}"
    case = f"{n * n} cells, learning rate × seed, {options.config}, seconds"
    print(json.dumps({"benchmark": "sweep", "machine": machine, "results": [result(case, times)]}))


if __name__ == "__main__":
    main()
