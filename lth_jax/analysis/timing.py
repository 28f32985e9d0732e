"""Comparative timing of functions on a machine with other load."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray


def alternated(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """The seconds of each function in each round, after one call that compiles.

    Each round calls all functions in turn, so that other load affects all of them: ratios within
    rounds are reliable.

    Args:
      functions: the functions by name.
      repeats: number of rounds.
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


def time_saved(
    slow: Callable[[], Any], fast: Callable[[], Any], rounds: tuple[int, int]
) -> NDArray[np.float64]:
    """The time saved in per cent, for each block, from the fastest round of each function.

    Args:
      slow: the function that `fast` replaces.
      fast: the other function.
      rounds: the number of blocks, and of alternated rounds in each.
    """
    times = alternated({"slow": slow, "fast": fast}, rounds[0] * rounds[1])
    least = {name: np.reshape(found, rounds).min(axis=1) for name, found in times.items()}
    return np.asarray(100 * (1 - least["fast"] / least["slow"]))
