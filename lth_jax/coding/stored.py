"""The networks of a run, read from the store one by one: what there is to weigh and to save."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lth_jax.coding.quantize import Precision
from lth_jax.coding.writer import encode
from lth_jax.schema import (
    MemberRecord,
    Named,
    NodeRecord,
    Unscored,
    prunable_of_run,
    read_entries,
    read_entry,
)
from lth_jax.store.errors import StoreError
from lth_jax.store.listing import RunInfo
from lth_jax.store.nodes import Store
from lth_jax.store.run_files import read_config
from lth_jax.types import DENSE, TICKET

TRAINED, REWOUND = "trained", "rewound"
"""Which values a saved ticket has: those at the end of its training, or of the rewind point."""


class Stored(NamedTuple):
    """One network of a run, as it stood at the end of its training.

    Attributes:
      arm: "dense", "ticket" or the name of a control.
      level: its round of train-prune-rewind; 0 is dense.
      replicate: its seed.
      density: fraction of the prunable weights kept.
      diverged_at: the step at which it diverged; None if it did not.
      node: the key of the node that holds it.
      key: its own: the same for all runs that have it in common, whoever trained beside it.
      mask: bool leaves.
      params: the trained values, 0 where pruned.
      state: the model's state (BatchNorm statistics and the like).
      prunable: Python booleans.
      unscored: why it was not trained (its `sentence`), if no scores made its mask.
    """

    arm: str
    level: int
    replicate: int
    density: float
    diverged_at: int | None
    node: str
    key: str
    mask: Named
    params: Named
    state: Named
    prunable: dict[str, bool]
    unscored: Unscored | None = None


def read_stored(
    store: Store, path: str | Path, arms: tuple[str, ...] = (DENSE, TICKET)
) -> Iterator[Stored]:
    """All networks of some arms of a run, level by level; one node is in memory at a time.

    Args:
      store: where the nodes lie.
      path: the run's folder.
      arms: which arms.

    Raises:
      CorruptError: if a file of the run is damaged.
    """
    listed = read_entries(path)
    may = prunable_of_run(store, listed)
    for entry in listed:
        if set(arms) & set(entry.arms):
            found = members(entry.key, read_entry(store, entry), may)
            yield from (one for one in found if one.arm in arms)


def find_stored(store: Store, info: RunInfo, *, arm: str, level: int, replicate: int) -> Stored:
    """One network of a run.

    Raises:
      StoreError: if the run has no such network, or it diverged.
      CorruptError: if a file of the run is damaged.
    """
    listed = read_entries(info.path)
    arms = dict.fromkeys(name for entry in listed for name in entry.arms)
    if arm not in arms:
        raise StoreError(f"unknown arm '{arm}': the arms of {info.run} are {', '.join(arms)}.")
    levels = dict.fromkeys(entry.level for entry in listed if arm in entry.arms)
    if level not in levels:
        there = ", ".join(map(str, levels))
        raise StoreError(f"unknown level {level}: '{arm}' of {info.run} has the levels {there}.")
    may, found = prunable_of_run(store, listed), dict[int, Stored]()
    for entry in listed:
        if entry.level == level and arm in entry.arms:
            some = members(entry.key, read_entry(store, entry), may)
            found |= {one.replicate: one for one in some if one.arm == arm}
    if replicate not in found:
        there = ", ".join(map(str, sorted(found)))
        raise StoreError(
            f"unknown replicate {replicate}: '{arm}' of {info.run} has the replicates {there} "
            f"at level {level}."
        )
    return _converged(found[replicate])


def encode_stored(
    store: Store,
    info: RunInfo,
    one: Stored,
    *,
    values: str = TRAINED,
    precision: Precision | None = None,
) -> bytes:
    """The ticket file of a network of a run, its origin in the file's provenance.

    Args:
      store: where the nodes lie.
      info: the run.
      one: from `find_stored`.
      values: `TRAINED`, or `REWOUND`: what the dense parent held at the rewind point, under the
        ticket's mask. The model's state is no part of a ticket.
      precision: how values are written; exactly where left out.

    Raises:
      StoreError: if rewound values are asked for of a control, which may start from others.
    """
    params = one.params if values == TRAINED else rewound(store, info, one)[0]
    prune = read_config(info.path).get("prune", {})
    provenance = {
        "run": info.run,
        "config_hash": info.config_hash,
        "node": one.node,
        "arm": one.arm,
        "level": one.level,
        "replicate": one.replicate,
        "density": one.density,
        "values": values,
        "criterion": prune.get("criterion"),
        "scope": prune.get("scope"),
    }
    return encode(
        one.mask, params, prunable=one.prunable, precision=precision, provenance=provenance
    )


def members(key: str, node: NodeRecord, prunable: dict[str, bool]) -> list[Stored]:
    """The networks that a level's node holds.

    Args:
      key: the node's key.
      node: the node.
      prunable: from `schema.prunable_of_run`, for the run whose networks they are.
    """
    end = node.points["end"]

    def network(i: int, member: MemberRecord) -> Stored:
        return Stored(
            **member._asdict(),
            level=node.facts.level,
            node=key,
            mask=_index(node.mask, i),
            params=_index(end.params, i),
            state=_index(end.state, i),
            prunable=prunable,
        )

    return [network(i, member) for i, member in enumerate(node.facts.members)]


def _index(population: Named, i: int) -> Named:
    return {name: np.asarray(leaf[i]) for name, leaf in population.items()}


def rewound(store: Store, info: RunInfo, one: Stored) -> tuple[Named, Named]:
    """Where a network was rewound to: its parent's parameters there on its mask, and the state.

    Raises:
      StoreError: if `one` is a control, which may start from other values, or has no parent.
      CorruptError: if a file of the run is damaged.
    """
    if one.arm not in (DENSE, TICKET):
        raise StoreError(f"rewound values are those of the ticket; '{one.arm}' is its control.")
    for entry in (e for e in read_entries(info.path) if e.level == 0):
        node = read_entry(store, entry)
        for i, parent in enumerate(node.facts.members):
            if parent.replicate == one.replicate:
                point = node.points["rewound"]
                dense = _index(point.params, i)
                params = {name: leaf * one.mask[name] for name, leaf in dense.items()}
                return params, _index(point.state, i)
    raise StoreError(f"{info.run} has no dense parent of replicate {one.replicate}.")


def _converged(one: Stored) -> Stored:
    if one.unscored is not None:
        raise StoreError(
            f"'{one.arm}' of replicate {one.replicate} at level {one.level} was not trained: "
            f"{one.unscored.sentence}"
        )
    if one.diverged_at is not None:
        raise StoreError(
            f"'{one.arm}' of replicate {one.replicate} at level {one.level} diverged at step "
            f"{one.diverged_at}; it has no values worth saving."
        )
    return one
