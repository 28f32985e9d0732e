"""What is alive in the networks of a run: units, and the weights that lie on a live path.

Every run is described once, when it is finished; a unit whose outgoing weights are all masked is
dead, and so are the weights into it, whatever kind of ticket it is in.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import units
from lth_jax import store as stores
from lth_jax import structure as st
from lth_jax import trees
from lth_jax.coding.stored import Stored, read_stored
from lth_jax.lottery import Task
from lth_jax.pruning import masks
from lth_jax.schema import read_entries
from lth_jax.store.analyses import add_analysis

SOURCES = (
    *(f"lth_jax.{room}" for room in ("structure", "pruning", "models", "trees", "keys")),
    "experiments.units",
    "experiments.live_units",
)


def describe(store: stores.Store, path: str | Path, task: Task) -> None:
    """Lists with a run which units of each of its networks are alive, and its effective density.

    Args:
      store: where the run's nodes lie.
      path: the run's folder.
      task: what the run trained with.
    """
    what = {
        "what": "units",
        "networks": [[entry.key, entry.rows] for entry in read_entries(path)],
        "source": stores.source_fingerprint(*SOURCES),
    }
    key = stores.content_key(what)
    store.node(key, partial(_described, store, path, lambda: units.structure_of(task)))
    add_analysis(path, key, {"kind": "units"})


def _described(
    store: stores.Store,
    path: str | Path,
    find: Callable[[], st.Structure],
    progress: stores.Partial,
) -> stores.Node:
    del progress  # a network takes milliseconds
    found = find()
    arms = tuple({arm for entry in read_entries(path) for arm in entry.arms})
    networks, alive, densities = [], [], []
    for one in read_stored(store, path, arms):
        flags, of_mask, of_paths = look(found, one)
        networks.append({name: getattr(one, name) for name in ("arm", "level", "replicate")})
        alive.append(flags)
        densities.append((of_mask, of_paths))
    arrays = {
        "alive": {g.name: np.array([flags[g.name] for flags in alive]) for g in found.groups},
        "density": np.array(densities, np.float32),
    }
    return stores.Node(arrays, {"kind": "units", "networks": networks, **drawing(found)})


def look(found: st.Structure, one: Stored) -> tuple[dict[str, np.ndarray], float, float]:
    """The live units of a network, its density and its effective density."""
    mask = trees.from_named(one.mask, found.params)
    prunable = trees.from_named(one.prunable, found.params)
    live = st.live_units(found, mask)
    on_path = jax.tree.map(np.logical_and, mask, st.expand(found, live))
    return live, float(masks.density(mask, prunable)), float(masks.density(on_path, prunable))


def drawing(found: st.Structure) -> dict[str, Any]:
    """The groups as JSON: who is tied to whom."""
    return {
        "leaves": [{"name": name, "shape": list(shape)} for name, shape in found.shapes.items()],
        "groups": [
            {
                "name": group.name,
                "units": group.units,
                "slots": [[slot.leaf, slot.axis, slot.indices.shape[1]] for slot in group.slots],
            }
            for group in found.groups
        ],
    }
