"""Timing of functions beside each other on a machine that is not quiet."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def alternated(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each function in each round, after one call that compiles.

    Each round calls all of them one after the other, so that what slows the machine slows all:
    trust ratios within rounds.

    Args:
      functions: what to call, by name.
      repeats: rounds.
    """
    for f in functions.values():
        jax.block_until_ready(f())
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, f in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(f())
            times[name].append(time.perf_counter() - start)
    return times
