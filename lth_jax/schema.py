"""The content of a ladder's node, some trained members of one level: its reader and writer.

A node is a population: every array has the member axis first, those of `curves` second. Each member
has its own key, so a member that several runs share is trained only once. A run's manifest lists
nodes, and which of their members belong to the run (`LevelEntry`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, get_type_hints

import jax
import numpy as np
from numpy.typing import NDArray

from lth_jax import text
from lth_jax.store import CorruptError, Node, Store, StoreError, read_manifest, records
from lth_jax.store.run_files import MANIFEST
from lth_jax.types import TrainState

KIND = "level"
VERSION = 1
"""The version of the nodes' fields, part of a node's key; raise it when a field changes."""

Named = dict[str, NDArray[Any]]
"""Arrays by the name of their leaf."""


class Unscored(NamedTuple):
    """Why a member was not trained: the scores of its mask were invalid.

    Attributes:
      criterion: the criterion's name.
      leaves: the leaves with invalid scores.
      sentence: the reason, as a sentence.
    """

    criterion: str
    leaves: list[str]
    sentence: str


class MemberRecord(NamedTuple):
    """One network of a node, and whether it was trained.

    Attributes:
      key: a hash of all that determines its numbers.
      arm: `"dense"`, `"ticket"` or the name of a control.
      replicate: its seed.
      density: the fraction of the prunable weights that it keeps.
      diverged_at: the step at which it diverged; None if it did not.
      unscored: set if it was not trained because the scores of its mask were invalid.
    """

    key: str
    arm: str
    replicate: int
    density: float
    diverged_at: int | None = None
    unscored: Unscored | None = None


class LeafRecord(NamedTuple):
    """One leaf of the network: its name, its shape, and whether it may be pruned."""

    name: str
    shape: tuple[int, ...]
    prunable: bool


@text.with_short_repr
class NodeFacts(NamedTuple):
    """The facts of a node: all of it but the arrays.

    Attributes:
      level: its round of train-prune-rewind; 0 is dense.
      members: its members, in the order of the member axis.
      leaves: the leaves of the network.
      steps: training steps of each member.
      seconds: training time of all members together.
    """

    level: int
    members: tuple[MemberRecord, ...]
    leaves: tuple[LeafRecord, ...]
    steps: int
    seconds: float

    @property
    def prunable(self) -> dict[str, bool]:
        """Leaf -> whether it may be pruned."""
        return {leaf.name: leaf.prunable for leaf in self.leaves}


@text.with_short_repr
class NodeRecord(NamedTuple):
    """A node, or some of its members.

    Attributes:
      facts: level, members, leaves and cost.
      results: metric -> `[members]`; NaN where a member diverged.
      eval_steps: the steps of the curves, int32 `[E]`.
      curves: metric -> `[E, members]`.
      mask: bool leaves `[members, …]`.
      points: name -> the members' states, leaves by name: `"end"`; at level 0 `"rewound"`;
        `"scored"` if the criterion scores an earlier step. `opt_state` is empty unless a level
        needs it.
    """

    facts: NodeFacts
    results: Named
    eval_steps: NDArray[Any]
    curves: Named
    mask: Named
    points: dict[str, TrainState]

    def take(self, rows: Sequence[int]) -> "NodeRecord":
        """The members at these places of the member axis; seconds are divided evenly."""
        facts, places = self.facts, np.asarray(rows, np.intp)
        members = tuple(facts.members[row] for row in rows)
        seconds = facts.seconds * len(rows) / len(facts.members)

        def taken(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf[places], tree)

        return NodeRecord(
            facts=facts._replace(members=members, seconds=seconds),
            results=taken(self.results),
            eval_steps=self.eval_steps,
            curves={name: curve[:, places] for name, curve in self.curves.items()},
            mask=taken(self.mask),
            points=taken(self.points),
        )


@text.with_short_repr
class LevelEntry(NamedTuple):
    """A line of a run's manifest: one node, and which of its members belong to the run.

    Attributes:
      key: the node.
      level: its level.
      arms: the arms that the run has in it.
      rows: the run's members, as places on the node's member axis.
      member_steps: training steps of these members, without those that an earlier experiment of
        the population shares.
      place: position of the first of them among the run's members of the level; entries are sorted
        by it.
    """

    key: str
    level: int
    arms: list[str]
    rows: list[int]
    member_steps: int
    place: int

    @classmethod
    def parse(cls, line: Mapping[str, Any], path: Path) -> Self:
        """An entry of the manifest at `path`; `CorruptError` if a field has the wrong type."""
        kinds = get_type_hints(cls)
        problems = [records.mismatch(line.get(k), kind, f"`{k}`") for k, kind in kinds.items()]
        for problem in filter(None, problems):
            raise records.damaged(path, problem)
        return cls(**{name: line[name] for name in kinds})


def to_node(record: NodeRecord) -> Node:
    """The record as a node of the store."""
    arrays = {
        "results": record.results,
        "history": {"step": record.eval_steps, **record.curves},
        "mask": record.mask,
        "points": {name: point._asdict() for name, point in record.points.items()},
    }
    facts = record.facts._asdict() | {
        "members": [
            m._asdict() | {"unscored": m.unscored and m.unscored._asdict()}
            for m in record.facts.members
        ],
        "leaves": [leaf._asdict() for leaf in record.facts.leaves],
    }
    return Node(arrays, {"kind": KIND, "version": VERSION, **facts})


def from_node(node: Node, name: str = "the node") -> NodeRecord:
    """The inverse of `to_node`; raises for nodes of another version, as `facts_of` does."""
    facts, arrays = facts_of(node.meta, name), node.arrays
    return NodeRecord(
        facts=facts,
        results=arrays["results"],
        eval_steps=arrays["history"]["step"],
        curves={k: v for k, v in arrays["history"].items() if k != "step"},
        mask=arrays["mask"],
        points={k: TrainState(**point) for k, point in arrays["points"].items()},
    )


def is_level(meta: Mapping[str, Any]) -> bool:
    """Whether these are the facts of a node of this schema and version."""
    return (meta.get("kind"), meta.get("version")) == (KIND, VERSION)


def facts_of(meta: Mapping[str, Any], name: str = "the node") -> NodeFacts:
    """The facts of a node, of its `meta`.

    Args:
      meta: `meta` of the node.
      name: name of the node, for messages.

    Raises:
      StoreError: the node is of another kind or version.

    >>> facts_of({"kind": "level", "version": 0}, "aa11")
    Traceback (most recent call last):
    lth_jax.store.errors.StoreError: aa11 has version 0 of its fields; this program reads version 1.
    """
    if meta.get("kind") != KIND:
        raise StoreError(f"{name} is of kind {meta.get('kind')!r}; a level's node is needed.")
    if meta.get("version") != VERSION:
        found = meta.get("version")
        raise StoreError(
            f"{name} has version {found} of its fields; this program reads version {VERSION}."
        )

    def member(m: dict[str, Any]) -> MemberRecord:
        return MemberRecord(**m | {"unscored": m["unscored"] and Unscored(**m["unscored"])})

    leaves = (leaf | {"shape": tuple(leaf["shape"])} for leaf in meta["leaves"])
    return NodeFacts(
        level=meta["level"],
        members=tuple(map(member, meta["members"])),
        leaves=tuple(LeafRecord(**leaf) for leaf in leaves),
        steps=meta["steps"],
        seconds=meta["seconds"],
    )


def read_facts(store: Store, key: str) -> NodeFacts:
    """The facts of a node, without its arrays; quick.

    Raises:
      CorruptError: they are damaged. StoreError: as `facts_of`.
    """
    return facts_of(store.facts(key), f"node {key[:8]}")


def read_results(store: Store, key: str) -> tuple[NodeFacts, Named]:
    """The facts of a node and its results, `{metric: [members]}`; other arrays are not read.

    Raises:
      CorruptError: the facts or the results are damaged. StoreError: as `facts_of`.
    """
    results, meta = store.read_part(key, "results")
    return facts_of(meta, f"node {key[:8]}"), results


def read_record(store: Store, key: str) -> NodeRecord:
    """A node with its arrays.

    Raises:
      CorruptError: one of its files is damaged. StoreError: it does not exist, or as `facts_of`.
    """
    return from_node(store.read(key), f"node {key[:8]}")


def read_entry(store: Store, entry: LevelEntry) -> NodeRecord:
    """The members of a node that belong to a run. Raises as `read_record` does."""
    return read_record(store, entry.key).take(entry.rows)


def read_entries(path: str | Path) -> list[LevelEntry]:
    """The levels that a run's manifest lists, in the order of levels and of members.

    Args:
      path: the run's folder.

    Raises:
      CorruptError: the manifest is damaged.
    """
    file = Path(path) / MANIFEST
    lines = [line for line in read_manifest(path)["nodes"] if "level" in line]
    found = [LevelEntry.parse(line, file) for line in lines]
    return sorted(found, key=lambda entry: (entry.level, entry.place))


def prunable_of_run(store: Store, listed: Sequence[LevelEntry]) -> dict[str, bool]:
    """Leaf -> whether a run may prune it; empty for a run without levels.

    The last level decides: the dense level may be shared with a run that prunes other leaves.

    Args:
      store: holds the nodes.
      listed: from `read_entries`.
    """
    return read_facts(store, listed[-1].key).prunable if listed else {}


def joined(nodes: Sequence[NodeRecord]) -> NodeRecord:
    """The nodes of one level as one population.

    Args:
      nodes: at least one node.

    Raises:
      CorruptError: they were evaluated at different steps, or hold a member twice.
    """
    first, level = nodes[0], nodes[0].facts.level
    members = tuple(member for one in nodes for member in one.facts.members)
    if len({(m.arm, m.replicate) for m in members}) < len(members):
        raise CorruptError(f"level {level} holds the same arm and replicate twice.")
    if not all(np.array_equal(one.eval_steps, first.eval_steps) for one in nodes):
        raise CorruptError(f"the chunks of level {level} were evaluated at different steps.")

    def along(axis: int, parts: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *parts)

    return NodeRecord(
        facts=first.facts._replace(
            members=members, seconds=sum(one.facts.seconds for one in nodes)
        ),
        results=along(0, [one.results for one in nodes]),
        eval_steps=first.eval_steps,
        curves=along(1, [one.curves for one in nodes]),
        mask=along(0, [one.mask for one in nodes]),
        points=along(0, [one.points for one in nodes]),
    )
