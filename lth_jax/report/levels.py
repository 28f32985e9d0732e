"""A run read back from the store: its levels, reduced to what tables and figures show."""

from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.overlap import Overlap, between_members
from lth_jax.store.errors import CorruptError
from lth_jax.store.listing import RunInfo, find_run
from lth_jax.store.members import read_entry
from lth_jax.store.nodes import Node, Store
from lth_jax.store.run_files import read_config, read_env, read_levels
from lth_jax.types import DENSE, TICKET


class Member(NamedTuple):
    """Who a network is, and what became of it.

    Attributes:
      arm: its arm.
      replicate: its seed.
      diverged_at: the step at which it diverged; None if it did not.
      unscored: `"criterion"`, `"leaves"` and a `"sentence"` if the scores behind its mask could not
        decide, so that it was not trained.
    """

    arm: str
    replicate: int
    diverged_at: int | None
    unscored: dict[str, Any] | None = None


class Level(NamedTuple):
    """One round of train-prune-rewind, all its arms and replicates together.

    Attributes:
      level: its number; 0 is the dense network.
      density: fraction of the prunable weights kept.
      members: who stands at each index of the member axis.
      results: `{metric: float[members]}`; NaN where a member diverged.
      steps: the steps of the training curves, int `[E]`.
      curves: `{metric: float[E, members]}`.
      leaf_sizes: `{prunable leaf: weights}`.
      leaf_densities: `{prunable leaf: float[members]}`.
      overlaps: `{(replicate, replicate): {prunable leaf: Overlap}}` of the tickets' masks.
      trained_steps: steps of training per member.
      seconds: time spent.
      member_steps_per_second: speed of training.
    """

    level: int
    density: float
    members: tuple[Member, ...]
    results: dict[str, NDArray[Any]]
    steps: NDArray[Any]
    curves: dict[str, NDArray[Any]]
    leaf_sizes: dict[str, int]
    leaf_densities: dict[str, NDArray[Any]]
    overlaps: dict[tuple[int, int], dict[str, Overlap]]
    trained_steps: int
    seconds: float
    member_steps_per_second: float

    @property
    def arms(self) -> list[str]:
        """The arms trained at this level, in order of appearance."""
        return list(dict.fromkeys(member.arm for member in self.members))


class RunRecord(NamedTuple):
    """What is known about a run.

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
        """The arms in order of appearance, the dense parent and the ticket first."""
        seen = dict.fromkeys(arm for level in self.levels for arm in level.arms)
        return sorted(seen, key=lambda arm: (arm != DENSE, arm != TICKET))


def read_run(store: Store, path: str | Path) -> RunRecord:
    """Reads a run's finished levels; an unfinished run has the levels finished so far.

    Args:
      store: where the nodes lie.
      path: the run's folder.

    Raises:
      StoreError: if there is no such run.
      CorruptError: if a file of the run is damaged, or a node does not match its hash.
    """
    path = Path(path)
    entries = read_levels(path)
    # The dense level may be shared with a run that prunes other leaves, so the last level decides.
    prunable = prunable_names(store.facts(entries[-1]["key"])) if entries else None
    levels = tuple(
        level_of([read_entry(store, entry) for entry in chunk], prunable)
        for _, chunk in groupby(entries, key=lambda entry: entry["level"])
    )
    env = read_env(path)
    return RunRecord(
        info=find_run(path.parent, str(path)),
        config=read_config(path),
        environments=env["environments"],
        plan=env["plan"],
        levels=levels,
    )


def prunable_names(meta: dict[str, Any]) -> list[str]:
    """The names of the leaves that may be pruned, by a level's node."""
    return [leaf["name"] for leaf in meta["leaves"] if leaf["prunable"]]


def level_of(nodes: list[Node], prunable: list[str] | None = None) -> Level:
    """Joins the chunks of one level along the member axis and reduces their masks.

    Args:
      nodes: the level's chunks.
      prunable: names of the leaves that may be pruned; by default those of the chunks.

    Raises:
      CorruptError: if the chunks were not evaluated at the same steps, or hold a member twice.
    """
    first = nodes[0].meta
    members = tuple(
        Member(m["arm"], m["replicate"], m["diverged_at"], m.get("unscored"))
        for n in nodes
        for m in n.meta["members"]
    )
    if len({(m.arm, m.replicate) for m in members}) < len(members):
        raise CorruptError(f"level {first['level']} holds the same arm and replicate twice.")
    steps = nodes[0].arrays["history"]["step"]
    if not all(np.array_equal(n.arrays["history"]["step"], steps) for n in nodes):
        raise CorruptError(
            f"the chunks of level {first['level']} were evaluated at different steps."
        )
    curves = [{k: v for k, v in n.arrays["history"].items() if k != "step"} for n in nodes]
    prunable = prunable_names(first) if prunable is None else prunable
    masks = _joined([{k: n.arrays["mask"][k] for k in prunable} for n in nodes], axis=0)
    return Level(
        level=first["level"],
        density=first["density"],
        members=members,
        results=_joined([n.arrays["results"] for n in nodes], axis=0),
        steps=np.asarray(steps),
        curves=_joined(curves, axis=1),
        leaf_sizes={k: int(np.prod(v.shape[1:])) for k, v in masks.items()},
        leaf_densities={k: v.reshape(len(v), -1).mean(axis=1) for k, v in masks.items()},
        overlaps=_ticket_overlaps(masks, members),
        trained_steps=first["steps"],
        seconds=sum(n.meta["seconds"] for n in nodes),
        member_steps_per_second=float(np.mean([n.meta["member_steps_per_second"] for n in nodes])),
    )


def _ticket_overlaps(
    masks: dict[str, NDArray[Any]], members: tuple[Member, ...]
) -> dict[tuple[int, int], dict[str, Overlap]]:
    """Overlaps between the tickets of different replicates; diverged ones are left out."""
    tickets = [i for i, m in enumerate(members) if m.arm == TICKET and m.diverged_at is None]
    chosen = {name: mask[tickets] for name, mask in masks.items()}
    pairs = between_members(chosen, prunable=dict.fromkeys(chosen, True))
    replicate = [members[i].replicate for i in tickets]
    return {(replicate[i], replicate[j]): leaves for (i, j), leaves in pairs.items()}


def _joined(trees: list[dict[str, Any]], axis: int) -> dict[str, NDArray[Any]]:
    return {k: np.concatenate([np.asarray(t[k]) for t in trees], axis=axis) for k in trees[0]}
