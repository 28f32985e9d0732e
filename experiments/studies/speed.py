"""Speed-up of networks without dead units."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies.study_runner import StudyRunner
from lth_jax import store as stores
from lth_jax import structure as st
from lth_jax.analysis.latency import Shrinker
from lth_jax.analysis.timing import alternated
from lth_jax.coding.stored import Stored


def time_saved(
    runner: StudyRunner, config: ConfigDict, dense: Stored, ticket: Stored, study: ConfigDict
) -> NDArray[np.float64]:
    """The time that a compacted network's forward pass saves, in per cent of the dense one.

    Args:
      runner: stores the results.
      config: of both.
      dense: one network.
      ticket: the other, without its dead units.
      study: `batch` examples in a pass; `rounds`, blocks and rounds in each.

    Returns:
      One value per block.
    """

    def compute(partial: Any) -> stores.Node:
        del partial  # interrupted rounds are discarded
        shrinker = Shrinker(runner.task(config), study.batch)
        slow, fast = (shrinker.shrink(one, shrinker.live(one)) for one in (dense, ticket))
        return stores.Node({"saved": saved(slow, fast, study.rounds)}, {})

    what = {
        "kind": "time saved",
        "networks": [dense.key, ticket.key],
        "settings": [study.batch, list(study.rounds)],
        "environment": stores.environment(),
    }
    return runner.node(what, compute).arrays["saved"]


def saved(
    slow: Callable[[], Any], fast: Callable[[], Any], rounds: tuple[int, int]
) -> NDArray[np.float64]:
    """Per cent of time saved, per block of alternated rounds, by the fastest round of each."""
    times = alternated({"slow": slow, "fast": fast}, rounds[0] * rounds[1])
    least = {name: np.reshape(found, rounds).min(axis=1) for name, found in times.items()}
    return 100 * (1 - least["fast"] / least["slow"])


def mostly_dead(
    rng: np.random.Generator, study: ConfigDict, width: int = 512
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The change of an MLP's outputs without dead units (per batch), and the time saved."""
    sizes = (64, width, width, 10)
    params = {
        f"w{i}": jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
        for i, shape in enumerate(pairwise(sizes))
    }
    x = jnp.asarray(rng.normal(size=(study.batch, sizes[0])), jnp.float32)

    def apply(p: Any, x: Any) -> Any:
        return jax.nn.relu(jax.nn.relu(x @ p["w0"]) @ p["w1"]) @ p["w2"]

    found = st.find_groups(apply, params, x)
    alive = {group.name: np.arange(group.units) % 4 == 0 for group in found.groups}
    masked = jax.tree.map(
        jnp.where, st.expand(found, alive), params, jax.tree.map(jnp.zeros_like, params)
    )
    small, fast = st.compact(found, masked, alive)
    slow, fast = jax.jit(apply), jax.jit(fast)
    apart = [
        float(jnp.abs(slow(masked, batch) - fast(small, batch)).max())
        for batch in (x * scale for scale in np.linspace(0.1, 1, study.control_seeds))
    ]
    least = saved(lambda: slow(masked, x), lambda: fast(small, x), study.rounds)
    return np.array(apart), least
