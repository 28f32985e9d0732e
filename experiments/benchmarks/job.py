"""The main job from command to page, beside the same ladder written by hand in JAX.

    python -m experiments.benchmarks.job [--quick] [--rounds N]

Every way is a process of its own, from its command to its end; ours ends with the report. Cold: no
compiled programs and no measured plans. Warm: both as an earlier run left them, the store empty;
the hand-written scripts then have JAX's cache of compiled programs too. The data are prepared
before. Ways take turns; a ratio is the median over rounds of ours / the other. The last line is one
JSON object.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments import build
from experiments.benchmarks.report import Row, beside, main
from experiments.configs import mnist1d_ladder
from lth_jax.store import files

OURS, EXPERT, NAIVE = "experiments.run", "one member per core, by hand", "one vmap, by hand"
GOALS = {"cold": 1.0, "warm": 0.8}
"""The most that our time may be of the expert's."""


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
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    files.write(folder / "data.npz", buffer.getvalue())
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


def measured(size: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every way in every round, `"cold"` and `"warm"`."""
    times: dict[str, dict[str, list[float]]] = {
        state: {name: [] for name in (OURS, EXPERT, NAIVE)} for state in GOALS
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


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Our job beside each script, cold and warm."""
    size = "smoke" if options.quick else "default"
    for state, times in measured(size, 1 if options.quick else options.rounds).items():
        for other in (EXPERT, NAIVE):
            case = f"main job, {size}, {state}, seconds, beside {other}"
            goal = GOALS[state] if other == EXPERT else None
            yield beside(case, times, other, OURS, goal=goal)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Rounds."""
    parser.add_argument("--rounds", type=int, default=5)


if __name__ == "__main__":
    main("job", __doc__, measure, add_options)
