"""The main job from command to report, compared with the same ladder written by hand in JAX.

    python -m experiments.benchmarks.job [--quick] [--rounds N] [--vmap]

Every way is a separate process, measured from start to end; ours includes the report. Cold: no
cached programs and plans. Warm: cached programs and plans of an earlier run, with an empty store.
The handwritten script runs unchanged, and warm also with JAX's compilation cache. Data are prepared
before. Rounds alternate; a ratio is the median over rounds of ours / the other. The last line is
one JSON object.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments import build
from experiments.benchmarks.report import main
from experiments.configs import mnist1d_ladder
from lth_jax.analysis.ratios import Row, beside
from lth_jax.store import files

OURS = "experiments.run"
EXPERT, CACHED = "one member per core, by hand", "one member per core, by hand, cached"
NAIVE = "one vmap, by hand"
GOALS = {"cold": 1.0, "warm": 0.8}
"""The largest allowed ratio of our time to that of the handwritten script."""


def commands(data: Path, size: str) -> dict[str, list[str]]:
    """The command of each way; ours also takes a folder for its store."""
    config = "experiments/configs/mnist1d_ladder.py" + (":smoke" if size == "smoke" else "")
    expert = ["experiments.benchmarks.expert", str(data), *(["--smoke"] if size == "smoke" else [])]
    machine = [f"--config.machine.data_dir={data.parent}", "--config.machine.progress=False"]
    return {
        OURS: ["experiments.run", f"--config={config}", *machine],
        EXPERT: expert,
        CACHED: expert,
        NAIVE: [*expert, "--vmap"],
    }


def prepare(folder: Path) -> Path:
    """Prepares the data in `folder` for ours, and as one file for the others."""
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
    """Seconds of a process, with the compilation cache of a folder."""
    env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    if name == CACHED:
        env["JAX_COMPILATION_CACHE_DIR"] = str(cache / "jax")
        env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        store = [f"--config.machine.workdir={folder}"] if name == OURS else []
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", *command, *store], env=env, stdout=subprocess.DEVNULL, check=True
        )
        return time.perf_counter() - began


def measured(size: str, rounds: int, names: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Seconds of every way in every round, `"cold"` and `"warm"`; uncached scripts run once."""
    times: dict[str, dict[str, list[float]]] = {
        state: {name: [] for name in names} for state in GOALS
    }
    with tempfile.TemporaryDirectory() as folder:
        ways = commands(prepare(Path(folder)), size)
        for i in range(rounds):
            for name in names:
                cache = Path(folder) / f"{i} {name}"
                for state in times:
                    alike = state == "warm" and name not in (OURS, CACHED)
                    new = times["cold"][name][-1] if alike else seconds(name, ways[name], cache)
                    times[state][name].append(new)
                    print(f"{name}, {state}: {new:.1f} s", flush=True)
    return times


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Our job and each script, cold and warm."""
    size = "smoke" if options.quick else "default"
    names = [OURS, EXPERT, CACHED, *([NAIVE] if options.vmap else [])]
    found = measured(size, 1 if options.quick else options.rounds, names)
    for state, times in found.items():
        for other in names[1:]:
            case = f"main job, {size}, {state}, seconds, beside {other}"
            goal = GOALS[state] if other == EXPERT else None
            yield beside(case, times, other, OURS, goal=goal)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Rounds, and the script with one vmap."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vmap", action="store_true", help="also beside one vmap over all members")


if __name__ == "__main__":
    main("job", __doc__, measure, add_options)
