"""A lottery with known winners: units that must start with the right signs.

A network `f(x) = Σⱼ vⱼ relu(aⱼ x)` of one input learns `relu(x)` from x ~ N(0, 1). Units with `a >
0` are active on positive inputs and the others on negative ones, so

    L = ((Σ_{a>0} a v − 1)² + (Σ_{a<0} a v)²) / 4

Gradient flow from `|a| = |v|` keeps both signs (Du, Hu & Lee, 2018, on balanced layers): only units
that start with `a > 0` and `v > 0` can learn, and one of them is enough. A single unit with random
signs has the right ones with probability 1/4; else its loss remains 1/4.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""An array of float64."""


class Lottery(NamedTuple):
    """Losses at the end of training, each `[seeds]`.

    Attributes:
      dense: all units.
      ticket: the unit with the largest `|a v|` after training, from its initial weights.
      reinit: the same unit with newly drawn signs.
      shuffle: a random unit, from its initial weights.
    """

    dense: Floats
    ticket: Floats
    reinit: Floats
    shuffle: Floats


def sign_lottery(rng: np.random.Generator, seeds: int, units: int = 16) -> Lottery:
    """Draws networks, trains and prunes each to one unit, and trains it with its controls.

    Args:
      rng: source of the signs and sizes.
      seeds: number of networks, at least 1.
      units: number of units of each, at least 1.

    Raises:
      ValueError: if a number is below 1.

    >>> found = sign_lottery(np.random.default_rng(0), 100)
    >>> found.ticket.mean() < 0.02 < 0.15 < found.reinit.mean()
    np.True_
    """
    if seeds < 1 or units < 1:
        raise ValueError(f"`seeds` {seeds} and `units` {units} must be at least 1.")
    start = _drawn(rng, (seeds, units))
    trained = _trained(*start)
    kept = np.argmax(np.abs(trained[0] * trained[1]), axis=1)
    seed, other = np.arange(seeds), rng.integers(0, units, seeds)

    def alone(part: tuple[Floats, Floats], unit: NDArray[np.int64]) -> Floats:
        return _loss(*_trained(*(leaf[seed, unit][:, None] for leaf in part)))

    return Lottery(
        dense=_loss(*trained),
        ticket=alone(start, kept),
        reinit=alone(_drawn(rng, (seeds, units)), kept),
        shuffle=alone(start, other),
    )


def _drawn(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Balanced: `|a| = |v|`, uniform in [0.1, 0.3], the signs independent."""
    size = rng.uniform(0.1, 0.3, shape)
    return size * rng.choice((-1.0, 1.0), shape), size * rng.choice((-1.0, 1.0), shape)


def _trained(a: Floats, v: Floats, *, rate: float = 0.2, steps: int = 300) -> tuple[Floats, Floats]:
    """Gradient descent."""
    for _ in range(steps):
        ahead, behind = _excess(a, v)
        pull = np.where(a > 0, ahead, behind) / 2
        a, v = a - rate * pull * v, v - rate * pull * a
    return a, v


def _excess(a: Floats, v: Floats) -> tuple[Floats, Floats]:
    """The network's slope minus its target, on positive and on negative inputs."""
    ahead = np.sum(a * v, axis=1, where=a > 0, keepdims=True) - 1
    return ahead, np.sum(a * v, axis=1, where=a < 0, keepdims=True)


def _loss(a: Floats, v: Floats) -> Floats:
    ahead, behind = _excess(a, v)
    return np.asarray((ahead**2 + behind**2)[:, 0] / 4, np.float64)
