"""Live units of a run's networks, and the weights on live paths."""

from functools import partial

import jax
import numpy as np

from lth_jax import structure as st
from lth_jax import trees
from lth_jax.analysis.arguments import checked
from lth_jax.analysis.measurement import Found, Measurement, RunContext, about
from lth_jax.coding.stored import Stored, read_stored
from lth_jax.lottery import Result
from lth_jax.lottery.structure import structure_of
from lth_jax.pruning import masks
from lth_jax.report import units as reports


@checked()
def units(run: Result) -> Measurement:
    """Determines the live units and the effective density of each network.

    A unit whose outgoing weights are all masked is dead, and so are the weights into it. The
    effective density counts only the weights of live units (Vysogorets and Kempe, 2023, for single
    connections).

    Args:
      run: a finished run.

    Returns:
      Live units and effective densities; latencies too, if they have been measured.
    """
    context = RunContext(run, "analysis.units", "lottery.structure", "pruning", "structure")
    context.keep({"kind": "units"}, partial(_described, context), networks=context.networks)
    return Measurement(reports, run)


def _described(context: RunContext) -> Found:
    found = structure_of(context.task)
    networks, alive, densities = [], [], []
    for one in read_stored(context.run.store, context.run.path, context.arms):
        flags, of_mask, of_paths = look(found, one)
        networks.append(about(one))
        alive.append(flags)
        densities.append((of_mask, of_paths))
    arrays = {
        "alive": {g.name: np.array([flags[g.name] for flags in alive]) for g in found.groups},
        "density": np.array(densities, np.float32),
    }
    groups = [
        {
            "name": group.name,
            "units": group.units,
            "slots": [[slot.leaf, slot.axis, slot.indices.shape[1]] for slot in group.slots],
        }
        for group in found.groups
    ]
    return arrays, {"networks": networks, "groups": groups}


def look(found: st.Structure, one: Stored) -> tuple[dict[str, np.ndarray], float, float]:
    """The live units of a network, its density and its effective density."""
    mask = trees.from_named(one.mask, found.params)
    prunable = trees.from_named(one.prunable, found.params)
    live = st.live_units(found, mask)
    on_path = jax.tree.map(np.logical_and, mask, st.expand(found, live))
    return live, float(masks.density(mask, prunable)), float(masks.density(on_path, prunable))
