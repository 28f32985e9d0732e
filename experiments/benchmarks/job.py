"""The main job from command to page, beside the same ladder written by hand in JAX.

    python -m experiments.benchmarks.job [--quick] [--rounds N]

Every way is a process of its own, from its command to its end; ours ends with the report. Cold: no
compiled programs and no measured plans. Warm: both as an earlier run left them, the store empty;
the hand-written scripts then have JAX's cache of compiled programs too. The data are prepared
before. Ways take turns; a ratio is the median over rounds of ours / the other. The last line is one
JSON object.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import build
from experiments.configs import mnist1d_ladder

OURS, EXPERT, NAIVE = "experiments.run", "one member per core, by hand", "one vmap, by hand"
GOALS: dict[str, dict[str, float]] = {"warm": {EXPERT: 0.8}, "cold": {EXPERT: 1.0}}


def commands(data: Path, size: str) -> dict[str, list[str]]:
    """What each way runs; ours takes a folder for its store in addition."""
    config = "experiments/configs/mnist1d_ladder.py" + (":smoke" if size == "smoke" else "")
    expert = ["experiments.benchmarks.expert", str(data), *(["--smoke"] if size == "smoke" else [])]
    machine = [f"--config.machine.data_dir={data.parent}", "--config.machine.progress=False"]
    return {
        OURS: ["experiments.run", f"--config={config}", *machine],
        EXPERT: expert,
        NAIVE: [*expert, "--vmap"],
    }


def prepare(folder: Path) -> Path:
    """Prepares the data for all ways: ours in `folder`, and the same arrays in one file."""
    config = mnist1d_ladder.get_config()
    config.machine.data_dir = str(folder)
    loaded = build.dataset(ConfigDict(config))
    arrays = {
        f"{split}_{name}": np.asarray(getattr(getattr(loaded, split), name))
        for split in ("train", "validation", "test")
        for name in ("x", "y")
    }
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return folder / "data.npz"


def seconds(name: str, command: list[str], cache: Path) -> float:
    """How long a process takes, with the compiled programs of a folder."""
    cached = {
        "XDG_CACHE_HOME": str(cache),
        "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if name == OURS:
        del cached["JAX_COMPILATION_CACHE_DIR"]  # it has a folder of its own in the cache
    with tempfile.TemporaryDirectory() as folder:
        store = [f"--config.machine.workdir={folder}"] if name == OURS else []
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", *command, *store],
            env={**os.environ, **cached},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - began


def measure(size: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every way in every round, `"cold"` and `"warm"`."""
    times: dict[str, dict[str, list[float]]] = {
        state: {name: [] for name in (OURS, EXPERT, NAIVE)} for state in ("cold", "warm")
    }
    with tempfile.TemporaryDirectory() as folder:
        ways = commands(prepare(Path(folder)), size)
        for i in range(rounds):
            for name, command in ways.items():
                cache = Path(folder) / f"{i} {name}"
                for state in ("cold", "warm"):
                    times[state][name].append(seconds(name, command, cache))
                    print(f"{name}, {state}: {times[state][name][-1]:.1f} s", flush=True)
    return times


def result(size: str, state: str, times: Mapping[str, list[float]]) -> dict[str, Any]:
    """The comparison as the benchmarks' JSON has it."""
    each = {
        other: [a / b for a, b in zip(times[OURS], times[other], strict=True)]
        for other in (EXPERT, NAIVE)
    }
    ratio, goal = statistics.median(each[EXPERT]), GOALS[state][EXPERT]
    return {
        "case": f"main job, {size}, {state}, seconds",
        "ours": statistics.median(times[OURS]),
        "alternatives": {name: statistics.median(times[name]) for name in each},
        "ratio": ratio,
        "ratios": {name: statistics.median(values) for name, values in each.items()},
        "spread": [min(each[EXPERT]), max(each[EXPERT])],
        "goal": goal,
        "met": ratio <= goal,
    }


def main() -> None:
    """Prints the seconds of every way and round, and the JSON object last."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smoke size, once")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size = "smoke" if options.quick else "default"
    times = measure(size, 1 if options.quick else options.rounds)
    machine = f"{platform.processor() or platform.machine()}, {jax.devices()[0].device_kind}"
    results = [result(size, state, found) for state, found in times.items()]
    print(json.dumps({"benchmark": "job", "machine": machine, "results": results}))


if __name__ == "__main__":
    main()
