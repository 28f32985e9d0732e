"""A network with known dead units: its outputs and its latency without them."""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax import structure as st
from lth_jax.timing import relative_times


def mostly_dead(
    rng: np.random.Generator, *, batch: int, rounds: int, scales: int, width: int = 512
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Removes the dead units of an MLP in which three of four hidden units are dead.

    Args:
      rng: source of weights and inputs.
      batch: number of inputs.
      rounds: number of rounds of each timing, as in `timing.relative_times`.
      scales: number of scales of the inputs for which outputs and times are compared.
      width: width of the hidden layers.

    Returns:
      The largest change of an output and the time saved in per cent, for each scale.
    """
    sizes = (64, width, width, 10)
    params = {
        f"w{i}": jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
        for i, shape in enumerate(pairwise(sizes))
    }
    x = jnp.asarray(rng.normal(size=(batch, sizes[0])), jnp.float32)

    def apply(p: Any, x: Any) -> Any:
        return jax.nn.relu(jax.nn.relu(x @ p["w0"]) @ p["w1"]) @ p["w2"]

    found = st.find_groups(apply, params, x)
    alive = {group.name: np.arange(group.units) % 4 == 0 for group in found.groups}
    masked = jax.tree.map(
        jnp.where, st.expand(found, alive), params, jax.tree.map(jnp.zeros_like, params)
    )
    small, fast = st.compact(found, masked, alive)
    slow, fast = jax.jit(apply), jax.jit(fast)
    apart, saved = [], []
    for scale in np.linspace(0.1, 1, scales):
        here = x * scale
        apart.append(float(jnp.abs(slow(masked, here) - fast(small, here)).max()))
        both = {"slow": partial(slow, masked, here), "fast": partial(fast, small, here)}
        saved.append(100 * (1 - relative_times(both, rounds)["fast"]))
    return np.array(apart), np.array(saved)


def one_unit_each(rng: np.random.Generator, classes: int = 10, examples: int = 200) -> float:
    """The error in percent of an identity network on one-hot inputs without half of its units.

    Args:
      rng: source of the removed units and the labels.
      classes: number of classes, inputs and units.
      examples: number of examples.
    """
    alive = rng.permutation(classes) < classes // 2
    labels = rng.integers(classes, size=examples)
    guessed = (np.eye(classes)[labels] * alive).argmax(axis=1)
    return 100 * float(np.mean(guessed != labels))
