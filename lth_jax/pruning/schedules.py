"""Schedules: the density at each level.

A schedule is a host function `level -> density`: level 0 is dense (density 1), densities never
increase, and a schedule with a last level stays at its final density. A level can be a round of
train-prune-rewind, a pruning event in one training, or an iteration of pruning before training.
"""

import math
import numbers
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import text
from lth_jax.pruning.checks import check_fraction
from lth_jax.pruning.masks import distance
from lth_jax.registry import Registry
from lth_jax.types import Mask, Prunable

Schedule = Callable[[int], float]
"""`level -> density`."""

SCHEDULES: Registry[Callable[..., Schedule]] = Registry("schedule")
"""Schedules by name; configs use these names.

A builder takes any of `rate`, the fraction removed at each level; `levels`, the number of levels;
and `final`, the density of the last.
"""


def one_shot(final: float) -> Schedule:
    """Density 1 at level 0, `final` from level 1 on.

    Raises:
      ValueError: `final` outside (0, 1].
      TypeError: `final` is not a number.

    >>> [one_shot(0.1)(level) for level in range(3)]
    [1.0, 0.1, 0.1]
    """
    final = check_fraction("final", final)
    return lambda level: 1.0 if _level(level) == 0 else final


def geometric(rate: float) -> Schedule:
    """Removes the fraction `rate` of the remaining weights at each level: (1 − rate)^level.

    The schedule of Frankle & Carbin (2019), who use rate 0.2.

    Raises:
      ValueError: `rate` outside (0, 1).
      TypeError: `rate` is not a number.

    >>> [round(geometric(0.2)(level), 3) for level in range(4)]
    [1.0, 0.8, 0.64, 0.512]
    """
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
        raise TypeError(f"`rate` must be a number in (0, 1), but is {rate!r}.")
    if not 0.0 < rate < 1.0:  # also for NaN
        raise ValueError(f"`rate` must lie in (0, 1), but is {rate}.")
    return lambda level: (1.0 - rate) ** _level(level)


def linear(levels: int, final: float) -> Schedule:
    """Removes the same number of weights at each level: 1 − (1 − final)·level/levels.

    Raises:
      ValueError: `levels` below 1 or `final` outside (0, 1].
      TypeError: `final` is not a number.

    >>> [linear(2, 0.5)(level) for level in range(4)]
    [1.0, 0.75, 0.5, 0.5]
    """
    return _to_final(levels, final, lambda done, final: 1.0 - (1.0 - final) * done)


def cubic(levels: int, final: float) -> Schedule:
    """Fast at first, slow at the end: final + (1 − final)·(1 − level/levels)³.

    The schedule of Zhu & Gupta (2017), "To prune, or not to prune", equation 1, from sparsity 0.

    Raises:
      ValueError: `levels` below 1 or `final` outside (0, 1].
      TypeError: `final` is not a number.

    >>> [cubic(2, 0.5)(level) for level in range(4)]
    [1.0, 0.5625, 0.5, 0.5]
    """
    return _to_final(levels, final, lambda done, final: final + (1.0 - final) * (1.0 - done) ** 3)


def exponential(levels: int, final: float) -> Schedule:
    """A geometric schedule that ends at a given density: final^(level/levels).

    The schedule of SynFlow (Tanaka et al., 2020, algorithm 1), there with 100 levels.

    Raises:
      ValueError: `levels` below 1 or `final` outside (0, 1].
      TypeError: `final` is not a number.

    >>> [round(exponential(2, 0.01)(level), 6) for level in range(4)]
    [1.0, 0.1, 0.01, 0.01]
    """
    return _to_final(levels, final, lambda done, final: final**done)


@text.with_short_repr
class EarlyBirdState(NamedTuple):
    """The last mask and the last distances, newest first (float32[window])."""

    mask: Mask
    distances: jax.Array


@text.with_short_repr
class EarlyBird(NamedTuple):
    """A stopping rule as two pure functions, both vmappable.

    Attributes:
      init: `mask -> state`.
      update: `(state, mask) -> (state, found)`; `found` is a boolean scalar.
    """

    init: Callable[..., EarlyBirdState]
    update: Callable[..., tuple[EarlyBirdState, jax.Array]]


def early_bird(prunable: Prunable, *, threshold: float = 0.1, window: int = 5) -> EarlyBird:
    """Detects the epoch after which the mask hardly changes.

    After each epoch, pass the mask that pruning at that epoch gives to `update`. `found` is True
    when the last `window` distances between masks of consecutive epochs (Hamming, over the number
    of prunable weights) are all below `threshold`: You et al. (2020), "Drawing early-bird tickets",
    algorithm 1, with the paper's values as defaults.

    Args:
      prunable: static tree of Python booleans.
      threshold: a distance in (0, 1].
      window: number of distances that must lie below it, at least 1.

    Raises:
      ValueError: `threshold` or `window` out of range.

    >>> rule = early_bird({"w": True}, threshold=0.4, window=1)
    >>> state = rule.init({"w": jnp.array([True, True, False])})
    >>> state, found = rule.update(state, {"w": jnp.array([True, False, True])})
    >>> state, found_later = rule.update(state, {"w": jnp.array([True, False, False])})
    >>> bool(found), bool(found_later)
    (False, True)
    """
    check_fraction("threshold", threshold)
    if window < 1:
        raise ValueError(f"`window` must be at least 1, but is {window}.")

    def init(mask: Mask) -> EarlyBirdState:
        return EarlyBirdState(mask, jnp.full(window, jnp.inf, jnp.float32))

    def update(state: EarlyBirdState, mask: Mask) -> tuple[EarlyBirdState, jax.Array]:
        newest = distance(state.mask, mask, prunable)
        distances = jnp.concatenate([newest[None], state.distances[:-1]])
        return EarlyBirdState(mask, distances), jnp.max(distances) < threshold

    return EarlyBird(init, update)


def _to_final(levels: int, final: float, shape: Callable[[float, float], float]) -> Schedule:
    """`shape(fraction of the levels done, final)`, exact at both ends."""
    if isinstance(levels, bool) or not isinstance(levels, numbers.Integral) or levels < 1:
        raise ValueError(f"`levels` must be a whole number of at least 1, but is {levels!r}.")
    final = check_fraction("final", final)

    def schedule(level: int) -> float:
        return final if _level(level) >= levels else shape(level / levels, final)

    return schedule


def _level(level: int) -> int:
    if not 0 <= level < math.inf or math.floor(level) != level:
        raise ValueError(f"`level` must be a whole number of at least 0, but is {level!r}.")
    return int(level)


for _schedule in (geometric, linear, cubic, exponential, one_shot):
    SCHEDULES.register(_schedule.__name__, _schedule)
