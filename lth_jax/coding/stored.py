"""The stored networks of a run, read one by one."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lth_jax.coding.quantize import Precision
from lth_jax.coding.writer import encode
from lth_jax.legal import check_name
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
"""The values of a saved ticket: after training, or at the rewind point."""


class Stored(NamedTuple):
    """One trained network of a run.

    Attributes:
      arm: "dense", "ticket" or the name of a control.
      level: its pruning level; 0 is dense.
      replicate: the index of its seed.
      density: fraction of the prunable weights kept.
      diverged_at: the step at which it diverged; None if it did not.
      node: the key of the node that holds it.
      key: the key of the member, the same in all runs that share it.
      mask: bool leaves.
      params: the trained values, 0 where pruned.
      state: the model's state (BatchNorm statistics and the like).
      prunable: Python booleans.
      unscored: set if it was not trained because the scores of its mask were invalid.
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
    store: Store,
    path: str | Path,
    arms: tuple[str, ...] = (DENSE, TICKET),
    levels: Collection[int] | None = None,
) -> Iterator[Stored]:
    """All networks of some arms of a run, level by level; one node is in memory at a time.

    Args:
      store: holds the nodes.
      path: the run's folder.
      arms: the arms.
      levels: pruning levels, the nodes of which are read; all by default.

    Raises:
      CorruptError: if a file of the run is damaged.
    """
    listed = read_entries(path)
    may = prunable_of_run(store, listed)
    for entry in listed:
        if set(arms) & set(entry.arms) and (levels is None or entry.level in levels):
            found = members(entry.key, read_entry(store, entry), may)
            yield from (one for one in found if one.arm in arms)


def find_stored(store: Store, info: RunInfo, *, arm: str, level: int, replicate: int) -> Stored:
    """One network of a run.

    Raises:
      StoreError: the run has no such network, or it diverged.
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
    """The ticket file of a stored network, with its origin as provenance.

    Args:
      store: holds the nodes.
      info: the run.
      one: from `find_stored`.
      values: `TRAINED`, or `REWOUND`: the dense network's values at the rewind point under the
        ticket's mask. The model's state is not part of a ticket.
      precision: precision of the values; exact by default.

    Raises:
      ValueError: `values` is neither.
      StoreError: rewound values are requested for a control, which may start from others.
    """
    check_name("values", values, (TRAINED, REWOUND))
    params = one.params
    if values == REWOUND:
        [(params, _)] = rewound(store, info, [one])
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
    """The networks in a level's node.

    Args:
      key: the node's key.
      node: the node.
      prunable: from `schema.prunable_of_run` of the run.
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


def rewound(store: Store, info: RunInfo, networks: Sequence[Stored]) -> list[tuple[Named, Named]]:
    """The rewound parameters of each network under its mask, and the model's state.

    Each node of dense networks is read once.

    Raises:
      StoreError: a network is a control, which may start from other values, or has no dense parent.
      CorruptError: if a file of the run is damaged.
    """
    for one in networks:
        if one.arm not in (DENSE, TICKET):
            raise StoreError(
                f"'{one.arm}' is a control, which may start from other values than the ticket; "
                f"give `values='{TRAINED}'`."
            )
    wanted, points = {one.replicate for one in networks}, dict[int, tuple[Named, Named]]()
    for entry in (e for e in read_entries(info.path) if e.level == 0):
        if not wanted - set(points):
            break
        node = read_entry(store, entry)
        point = node.points["rewound"]
        for i, parent in enumerate(node.facts.members):
            if parent.replicate in wanted:
                points[parent.replicate] = _index(point.params, i), _index(point.state, i)
    if lost := wanted - set(points):
        raise StoreError(f"{info.run} has no dense parent of replicate {min(lost)}.")

    return [masked(points[one.replicate], one.mask) for one in networks]


def masked(point: tuple[Named, Named], mask: Named) -> tuple[Named, Named]:
    """The parameters of a point under a mask, and its state."""
    params, state = point
    return {name: leaf * mask[name] for name, leaf in params.items()}, state


def check_scored(one: Stored) -> None:
    """Raises `StoreError` if the scores of a network's mask were invalid."""
    if one.unscored is not None:
        raise StoreError(
            f"'{one.arm}' of replicate {one.replicate} at level {one.level} was not trained: "
            f"{one.unscored.sentence}"
        )


def _converged(one: Stored) -> Stored:
    check_scored(one)
    if one.diverged_at is not None:
        raise StoreError(
            f"'{one.arm}' of replicate {one.replicate} at level {one.level} diverged at step "
            f"{one.diverged_at}; it has no finite values."
        )
    return one
