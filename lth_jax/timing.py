"""Comparative timing of functions on a machine with other load."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def alternated(
    functions: Mapping[str, Callable[[], Any]], repeats: int, *, warm: bool = False
) -> dict[str, list[float]]:
    """The seconds of each function in each round, after one call that compiles.

    Each round calls all functions once, so that other load affects all of them: ratios within
    rounds are reliable. The order is drawn anew for each round with a fixed seed, so that no
    function always follows the same one.

    Args:
      functions: the functions by name.
      repeats: number of rounds.
      warm: whether an untimed call precedes each timed one, for calls that take microseconds: their
        times depend on the caches and threads that the previous function used.
    """
    for f in functions.values():
        jax.block_until_ready(f())
    times: dict[str, list[float]] = {name: [] for name in functions}
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        for name in rng.permutation(list(functions)):
            f = functions[name]
            if warm:
                jax.block_until_ready(f())
            start = time.perf_counter()
            jax.block_until_ready(f())
            times[name].append(time.perf_counter() - start)
    return times


def relative_times(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The fastest time of each function over `repeats` alternated rounds, relative to the first.

    An untimed call precedes each timed one.

    Args:
      functions: the functions by name.
      repeats: number of rounds.

    >>> relative_times({"dense": lambda: 1, "other": lambda: 1}, 3)["dense"]
    1.0
    """
    least = {name: min(times) for name, times in alternated(functions, repeats, warm=True).items()}
    first = least[next(iter(functions))]
    return {name: time / first for name, time in least.items()}


def median_relative_times(
    make: Callable[[], Mapping[str, Callable[[], Any]]], repeats: int, copies: int
) -> dict[str, float]:
    """The median of `relative_times` over functions that are made anew.

    The place of a buffer in memory affects its time by a few percent in all rounds alike, so
    functions that hold buffers need several copies.

    Args:
      make: makes the functions by name, with new buffers.
      repeats: number of rounds of each copy.
      copies: number of times that the functions are made.

    >>> median_relative_times(lambda: {"dense": lambda: 1, "other": lambda: 1}, 3, 2)["dense"]
    1.0
    """
    found = [relative_times(make(), repeats) for _ in range(copies)]
    return {name: float(np.median([one[name] for one in found])) for name in found[0]}
