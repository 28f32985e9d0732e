"""Measured latencies of networks without some units, and a table that predicts others."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import text
from lth_jax.legal import shown, whole
from lth_jax.structure.compact import UnitMask, compact
from lth_jax.structure.groups import Structure
from lth_jax.timing import alternated, median_relative_times
from lth_jax.types import Params

LATENCY = "milliseconds"
_DENSE, _LEAST = "dense", "least"


@text.with_short_repr
class Timing(NamedTuple):
    """How latencies are measured.

    Attributes:
      points: counts of each group that are measured, its largest and smallest included; at least 2.
      repeats: alternated rounds, of which the fastest counts.
      copies: how often the networks and inputs get new buffers; the median counts.
      rounds: networks that are chosen and measured at most.
    """

    points: int = 4
    repeats: int = 20
    copies: int = 3
    rounds: int = 6


TIMING = Timing()


def check_timing(timing: Timing) -> None:
    """Raises `ValueError` for a number out of range."""
    for name, number in timing._asdict().items():
        legal = whole(2 if name == "points" else 1)
        if not legal.holds(number):
            raise ValueError(f"`timing.{name}` is {shown(number)}; it must be {legal.words}.")


class Latency(NamedTuple):
    """The measured latencies of a network.

    Attributes:
      predict: numbers of kept units by group → milliseconds; arrays give arrays.
      of: a unit mask → measured milliseconds.
    """

    predict: Callable[[Mapping[str, Any]], Any]
    of: Callable[[UnitMask], float]


def measure(
    structure: Structure,
    params: Params,
    options: Sequence[np.ndarray],
    inputs: Sequence[Any],
    timing: Timing,
) -> Latency:
    """Measures the dense network, the smallest one, and each group alone at a few counts.

    `predict` is `dense − r · Σ_g (dense − latency_g(count))`, in which `r` makes the prediction of
    the smallest network its measured latency, at most that of the dense one.

    Args:
      structure: from `find_groups`.
      params: arrays of the analysed shapes.
      options: the possible counts of each group, in rising order.
      inputs: the further arguments of the network.
      timing: how to measure.

    Raises:
      ValueError: a group is not exact.
    """
    full = {group.name: group.units for group in structure.groups}
    least = {name: int(counts[0]) for name, counts in zip(full, options, strict=True)}
    grids = {name: _grid(counts, timing.points) for name, counts in zip(full, options, strict=True)}
    shapes = {(name, n): full | {name: int(n)} for name, grid in grids.items() for n in grid[:-1]}
    networks = {str(key): _first(full, kept) for key, kept in shapes.items()}
    networks = {_DENSE: _first(full, full), _LEAST: _first(full, least)} | networks
    call = functools.partial(_calls, structure, params, inputs)
    relative = _relative(call(networks), timing)
    dense = _milliseconds(call({_DENSE: networks[_DENSE]})(), timing)
    gains = {n: [1 - relative[str((n, k))] for k in grid[:-1]] for n, grid in grids.items()}
    # Noise must not make a larger network a faster one.
    saved = {n: np.maximum.accumulate([0.0, *g[::-1]])[::-1] for n, g in gains.items()}
    total = sum(float(s[0]) for s in saved.values())
    scale = dense * max(1 - relative[_LEAST], 0) / total if total else 0.0

    def predict(kept: Mapping[str, Any]) -> Any:
        gains = (np.interp(kept[name], grids[name], saved[name]) for name in grids)
        return dense - scale * sum(gains, start=np.float64(0))

    def of(units: UnitMask) -> float:
        pair = {_DENSE: networks[_DENSE], "chosen": units}
        return dense * _relative(call(pair), timing)["chosen"]

    return Latency(predict, of)


def _grid(counts: np.ndarray, points: int) -> np.ndarray:
    """Some of the possible counts, evenly spaced, the smallest and the largest included."""
    return counts[np.unique(np.linspace(0, len(counts) - 1, points).round().astype(int))]


def _first(full: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, np.ndarray]:
    """A unit mask of these counts: latency does not depend on which units stay."""
    return {name: np.arange(n) < kept[name] for name, n in full.items()}


def _calls(
    structure: Structure, params: Params, inputs: Sequence[Any], networks: Mapping[str, UnitMask]
) -> Callable[[], dict[str, Callable[[], Any]]]:
    """A function that makes the calls of the compacted networks, each time with new buffers."""
    made = {}
    for name, units in networks.items():
        small, apply = compact(structure, params, units)
        made[name] = jax.jit(apply), small

    def fresh() -> dict[str, Callable[[], Any]]:
        return {
            name: functools.partial(run, *jax.tree.map(jnp.array, (small, *inputs)))
            for name, (run, small) in made.items()
        }

    return fresh


def _relative(
    make: Callable[[], Mapping[str, Callable[[], Any]]], timing: Timing
) -> dict[str, float]:
    return median_relative_times(make, timing.repeats, timing.copies)


def _milliseconds(functions: Mapping[str, Callable[[], Any]], timing: Timing) -> float:
    return 1e3 * min(alternated(functions, timing.repeats, warm=True)[_DENSE])
