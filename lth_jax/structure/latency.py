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

_DENSE, _LEAST, _CHOSEN = "dense", "least", "chosen"
Counts = Mapping[str, Any]
"""Group name → number of kept units."""


@text.with_short_repr
class Latency(NamedTuple):
    """The latency of a function without some units on one device, from `measure_latency`.

    Attributes:
      dense: milliseconds of one call with all units.
      predict: numbers of kept units by group → milliseconds; arrays give arrays.
      of: numbers of kept units by group → measured milliseconds; each shape is measured once.
    """

    dense: float
    predict: Callable[[Counts], Any]
    of: Callable[[Counts], float]


def measure_latency(
    structure: Structure,
    params: Params,
    *inputs: Any,
    points: int = 4,
    repeats: int = 20,
    copies: int = 3,
) -> Latency:
    """Measures a compiled function with all units, the fewest, and some counts of each group.

    The prediction adds up the savings of the groups, `dense − r Σ_g (dense − latency_g(count_g))`,
    with linear interpolation between counts. The factor `r` makes it exact for the network with one
    unit in each group, since savings of neighbouring layers overlap. Tables of latencies are from
    HALP (Shen et al., 2022, "Structural pruning via latency-saliency knapsack").

    Args:
      structure: from `find_groups`.
      params: arrays of the analysed shapes; their values do not matter.
      *inputs: the further arguments of the function, on whose batch the latency depends.
      points: counts of each group that are measured, 1 and all units included; at least 2.
      repeats: number of alternated rounds of a measurement; the fastest is used.
      copies: number of repetitions with new buffers; their median is used.

    Raises:
      ValueError: a number is out of range, `inputs` is empty, or a group is not exact.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((8, 1)), "w": jnp.ones((3, 8))}
    >>> apply, x = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], jnp.ones((2, 3))
    >>> found = find_groups(apply, params, x)
    >>> latency = measure_latency(found, params, x, points=2, repeats=2, copies=1)
    >>> bool(0 < latency.predict({"v:0": 4}) <= latency.dense)
    True
    """
    for name, number, low in (
        ("points", points, 2),
        ("repeats", repeats, 1),
        ("copies", copies, 1),
    ):
        if not whole(low).holds(number):
            raise ValueError(f"`{name}` is {shown(number)}; it must be {whole(low).words}.")
    if not inputs:
        raise ValueError("`inputs` is empty; give the arguments of the function after `params`.")
    times = functools.partial(
        relative_latencies, structure, params, inputs, repeats=repeats, copies=copies
    )
    full = {group.name: group.units for group in structure.groups}
    grids = {
        name: np.unique(np.linspace(1, n, points).round().astype(int)) for name, n in full.items()
    }
    alone = {str((name, n)): full | {name: n} for name in full for n in grids[name][:-1].tolist()}
    relative = times({_DENSE: full, _LEAST: dict.fromkeys(full, 1), **alone})
    calls = _calls(structure, params, inputs, {_DENSE: full})()
    dense = 1e3 * min(alternated(calls, repeats, warm=True)[_DENSE])
    gains = {
        n: [1 - relative[str((n, k))] for k in grid[:-1].tolist()] for n, grid in grids.items()
    }
    # Noise must not make a larger network faster than a smaller one.
    saved = {n: np.maximum.accumulate([0.0, *g[::-1]])[::-1] for n, g in gains.items()}
    total = sum(float(s[0]) for s in saved.values())
    scale = dense * max(1 - relative[_LEAST], 0) / total if total else 0.0

    def predict(kept: Counts) -> Any:
        gains = (np.interp(kept[name], grids[name], saved[name]) for name in grids)
        return dense - scale * sum(gains, start=np.float64(0))

    @functools.cache
    def measured(shape: tuple[int, ...]) -> float:
        pair = {_DENSE: full, _CHOSEN: dict(zip(full, shape, strict=True))}
        return dense * times(pair)[_CHOSEN]

    return Latency(dense, predict, lambda kept: measured(tuple(int(kept[name]) for name in full)))


def relative_latencies(
    structure: Structure,
    params: Params,
    inputs: Sequence[Any],
    networks: Mapping[str, Counts],
    *,
    repeats: int = 20,
    copies: int = 3,
) -> dict[str, float]:
    """The latencies of compacted networks by name, relative to the first one.

    Args:
      structure: from `find_groups`.
      params: arrays of the analysed shapes.
      inputs: the further arguments of the function.
      networks: numbers of kept units by group; latency does not depend on which units stay.
      repeats: as in `measure_latency`.
      copies: as in `measure_latency`.
    """
    return median_relative_times(_calls(structure, params, inputs, networks), repeats, copies)


def _calls(
    structure: Structure, params: Params, inputs: Sequence[Any], networks: Mapping[str, Counts]
) -> Callable[[], dict[str, Callable[[], Any]]]:
    """A function that makes the calls of the compacted networks, each time with new buffers."""
    made = {}
    for name, kept in networks.items():
        units: UnitMask = {g.name: np.arange(g.units) < kept[g.name] for g in structure.groups}
        small, apply = compact(structure, params, units)
        made[name] = jax.jit(apply), small

    def fresh() -> dict[str, Callable[[], Any]]:
        return {
            name: functools.partial(run, *jax.tree.map(jnp.array, (small, *inputs)))
            for name, (run, small) in made.items()
        }

    return fresh
