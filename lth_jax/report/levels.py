"""A run read back from the store: its levels, reduced to what tables and figures show."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax import text
from lth_jax.measures.overlap import Overlap, between_members
from lth_jax.schema import (
    MemberRecord,
    NodeRecord,
    joined,
    prunable_of_run,
    read_entries,
    read_entry,
)
from lth_jax.store.listing import RunInfo, find_run
from lth_jax.store.nodes import Store
from lth_jax.store.run_files import read_config, read_env
from lth_jax.types import DENSE, TICKET


@text.with_short_repr
class Level(NamedTuple):
    """One round of train-prune-rewind, all its arms and replicates together.

    Attributes:
      level: its number; 0 is the dense network.
      density: fraction of the prunable weights kept.
      members: the record of each index of the member axis.
      results: `{metric: float[members]}`; NaN where a member diverged.
      steps: the steps of the training curves, int `[E]`.
      curves: `{metric: float[E, members]}`.
      leaf_sizes: `{prunable leaf: weights}`.
      leaf_densities: `{prunable leaf: float[members]}`.
      overlaps: `{(replicate, replicate): {prunable leaf: Overlap}}` of the tickets' masks.
      trained_steps: steps of training per member.
      seconds: time spent.
    """

    level: int
    density: float
    members: tuple[MemberRecord, ...]
    results: dict[str, NDArray[Any]]
    steps: NDArray[Any]
    curves: dict[str, NDArray[Any]]
    leaf_sizes: dict[str, int]
    leaf_densities: dict[str, NDArray[Any]]
    overlaps: dict[tuple[int, int], dict[str, Overlap]]
    trained_steps: int
    seconds: float

    @property
    def arms(self) -> list[str]:
        """The arms trained at this level, in order of appearance."""
        return list(dict.fromkeys(member.arm for member in self.members))


@text.with_short_repr
class RunRecord(NamedTuple):
    """A run, read back for tables and figures.

    Attributes:
      info: its name, status and folder.
      config: its configuration.
      environments: versions and devices, one entry per change of them.
      plan: how the work was divided; None before it is recorded.
      levels: the levels finished so far.
    """

    info: RunInfo
    config: dict[str, Any]
    environments: list[dict[str, Any]]
    plan: Any
    levels: tuple[Level, ...]

    @property
    def arms(self) -> list[str]:
        """The arms in order of appearance, dense and ticket first."""
        seen = dict.fromkeys(arm for level in self.levels for arm in level.arms)
        return sorted(seen, key=lambda arm: (arm != DENSE, arm != TICKET))


def read_run(store: Store, path: str | Path) -> RunRecord:
    """Reads a run's finished levels; an unfinished run has the levels finished so far.

    Args:
      store: holds the nodes.
      path: the run's folder.

    Raises:
      StoreError: if there is no such run.
      CorruptError: if a file of the run is damaged, or a node does not match its hash.
    """
    path = Path(path)
    entries = read_entries(path)
    prunable = prunable_of_run(store, entries)
    levels = tuple(
        level_of([read_entry(store, entry) for entry in chunk], prunable)
        for _, chunk in groupby(entries, key=lambda entry: entry.level)
    )
    env = read_env(path)
    return RunRecord(
        info=find_run(path.parent, str(path)),
        config=read_config(path),
        environments=env["environments"],
        plan=env["plan"],
        levels=levels,
    )


def level_of(nodes: Sequence[NodeRecord], prunable: Mapping[str, bool] | None = None) -> Level:
    """Joins the chunks of one level along the member axis and reduces their masks.

    Args:
      nodes: the level's chunks.
      prunable: leaf -> whether it may be pruned; by default those of the chunks.

    Raises:
      CorruptError: if the chunks were not evaluated at the same steps, or hold a member twice.
    """
    whole = joined([one._replace(points={}) for one in nodes])
    facts = whole.facts
    may = facts.prunable if prunable is None else prunable
    masks = {name: mask for name, mask in whole.mask.items() if may[name]}
    return Level(
        level=facts.level,
        density=facts.members[0].density,
        members=facts.members,
        results=whole.results,
        steps=whole.eval_steps,
        curves=whole.curves,
        leaf_sizes={k: int(np.prod(v.shape[1:])) for k, v in masks.items()},
        leaf_densities={k: v.reshape(len(v), -1).mean(axis=1) for k, v in masks.items()},
        overlaps=_ticket_overlaps(masks, facts.members),
        trained_steps=facts.steps,
        seconds=facts.seconds,
    )


def _ticket_overlaps(
    masks: dict[str, NDArray[Any]], members: tuple[MemberRecord, ...]
) -> dict[tuple[int, int], dict[str, Overlap]]:
    """Overlaps between the tickets of different replicates; diverged ones are left out."""
    tickets = [i for i, m in enumerate(members) if m.arm == TICKET and m.diverged_at is None]
    chosen = {name: mask[tickets] for name, mask in masks.items()}
    pairs = between_members(chosen, prunable=dict.fromkeys(chosen, True))
    replicate = [members[i].replicate for i in tickets]
    return {(replicate[i], replicate[j]): leaves for (i, j), leaves in pairs.items()}
