"""XOR: a task so small that all subnetworks which can solve it are known.

The network is `f(x) = Σᵢ vᵢ σ(wᵢ · x)` with two inputs, H hidden units, no biases and σ a ReLU:
3H weights. A subnetwork of six weights can be XOR exactly if it is two whole hidden units. For
`f(1,1) − f(1,0) − f(0,1) = −2` is needed, and a unit with one input adds 0 to it; a whole unit adds
something below 0 only with inputs a > 0 > b, `−v·min(a, |b|)`. Three units of two weights thus give
0. One whole unit and one of two weights give `f(1,0) = v·a ≥ 2` and `f(0,1) = 0` before the second
adds to one of them, which leaves the other wrong. So of C(3H, 6) masks C(H, 2) can win, 6 of 924 at
H = 4, and whether one does depends on where its weights start.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

INPUTS = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
"""The inputs of XOR but (0, 0)."""

TARGETS = (1.0, 1.0, 0.0)
"""XOR without (0, 0), where a network without biases is right whatever its weights."""


class Weights(NamedTuple):
    """Networks, or their masks, along leading axes.

    Attributes:
      first: `[…, H, 2]`, wᵢ.
      second: `[…, H]`, vᵢ.
    """

    first: jax.Array
    second: jax.Array


def draw(key: jax.Array, networks: int, hidden: int, *, scale: float = 0.5) -> Weights:
    """Networks with independent normal weights.

    Args:
      key: a typed PRNG key.
      networks: how many.
      hidden: H.
      scale: standard deviation.

    >>> draw(jax.random.key(0), 5, 4).first.shape
    (5, 4, 2)
    """
    first, second = jax.random.split(key)
    return Weights(
        scale * jax.random.normal(first, (networks, hidden, 2)),
        scale * jax.random.normal(second, (networks, hidden)),
    )


def pairs(weights: Weights) -> Weights:
    """All subnetworks of two whole hidden units: the only ones of six weights that can win.

    Args:
      weights: of networks `[n, …]` with H ≥ 2 hidden units.

    Returns:
      Networks with two hidden units each, `[n, C(H, 2), …]`.

    >>> pairs(draw(jax.random.key(0), 5, 4)).first.shape
    (5, 6, 2, 2)
    """
    chosen = np.array(list(combinations(range(weights.second.shape[-1]), 2)))
    return Weights(weights.first[:, chosen], weights.second[:, chosen])


def six_of(hidden: int) -> Weights:
    """All masks that keep six of the 3H weights.

    Returns:
      Bool arrays `[C(3H, 6), …]`.

    >>> six_of(4).second.shape
    (924, 4)
    """
    kept = np.array(list(combinations(range(3 * hidden), 6)))
    mask = np.zeros((len(kept), 3 * hidden), bool)
    np.put_along_axis(mask, kept, True, axis=1)
    first, second = mask[:, : 2 * hidden], mask[:, 2 * hidden :]
    return Weights(jnp.asarray(first.reshape(-1, hidden, 2)), jnp.asarray(second))


@partial(jax.jit, static_argnames=("activation", "steps"))
def solved(
    weights: Weights,
    mask: Weights | None = None,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    steps: int = 300,
    rate: float = 0.1,
    tolerance: float = 0.1,
) -> jax.Array:
    """Which networks are XOR after full-batch gradient descent on half the squared errors.

    Args:
      weights: where they start, along any leading axes.
      mask: what is kept of them; all where left out.
      activation: σ.
      steps: of gradient descent.
      rate: learning rate.
      tolerance: the largest error of an output.

    Returns:
      Bool, shaped like the leading axes.

    >>> ideal = Weights(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), jnp.array([1.0, 1.0]))
    >>> bool(solved(ideal, steps=0)), bool(solved(ideal, activation=jax.numpy.tanh, steps=0))
    (True, False)
    """
    x, y = jnp.array(INPUTS), jnp.array(TARGETS)

    def errors(w: Weights) -> jax.Array:
        hidden = activation(jnp.einsum("...hd,ed->...he", w.first, x))
        return jnp.einsum("...h,...he->...e", w.second, hidden) - y

    def keep(w: Weights) -> Weights:
        return w if mask is None else jax.tree.map(lambda a, m: jnp.where(m, a, 0), w, mask)

    def step(_: jax.Array, w: Weights) -> Weights:
        slope = keep(jax.grad(lambda w: 0.5 * jnp.sum(errors(w) ** 2))(w))
        return jax.tree.map(lambda a, g: a - rate * g, w, slope)

    end = jax.lax.fori_loop(0, steps, step, keep(weights))
    return jnp.abs(errors(end)).max(axis=-1) < tolerance
