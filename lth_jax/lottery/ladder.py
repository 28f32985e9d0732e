"""Iterative pruning: train, prune, rewind, again, with each ticket's controls beside it.

Level 0 is the trunk: one dense parent per replicate, shared by everything above it. Each further
level prunes the tickets of the level before, builds their controls, and trains all of them as one
population. Every chunk of every level is a node of the store, keyed by all that decides its
numbers; a node that exists is read, not trained.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax import trees
from lth_jax.lottery.level import Assignment, OnProgress, compile_measure, train_node
from lth_jax.lottery.rewind import Point
from lth_jax.lottery.spec import Lab, Label, Ladder, check_ladder, labels
from lth_jax.lottery.starts import Starts, Tickets
from lth_jax.store import Node, Store, content_key
from lth_jax.training.population import Plan, chunks, compile_segment
from lth_jax.types import DENSE, TICKET


class Entry(NamedTuple):
    """A line of a run's manifest: one node, its level, the arms it holds and the work in it."""

    key: str
    level: int
    arms: list[str]
    member_steps: int


class Hooks(NamedTuple):
    """What the ladder tells its caller, who may raise from any of them to stop it.

    Attributes:
      on_progress: after each segment.
      on_node: after each node, with its manifest entry; also for nodes found in the store.
      on_replan: `(level, plan)` when memory ran out and a level starts again at a smaller chunk;
        must write it down before it returns.
    """

    on_progress: OnProgress = lambda progress: None
    on_node: Callable[[Entry], None] = lambda entry: None
    on_replan: Callable[[int, Plan], None] = lambda level, plan: None


SILENT = Hooks()


def climb(
    lab: Lab,
    ladder: Ladder,
    *,
    store: Store,
    plans: Sequence[tuple[int, Plan]],
    identity: dict[str, Any],
    hooks: Hooks = SILENT,
) -> list[Entry]:
    """Trains, or reads, the whole ladder.

    Args:
      lab: what to train with.
      ladder: what to do.
      store: where finished nodes are and go.
      plans: `(level, plan)` in ascending order, the first for level 0: the plan from that level
        on. More than one only where memory ran out.
      identity: JSON-like; all that decides the numbers and is not in the nodes' own keys:
        `"trunk"` for level 0 and, in addition, `"ladder"` for the levels above it.
      hooks: whom to tell.

    Returns:
      The manifest: every node in order.
    """
    check_ladder(lab, ladder)
    climb = _Climb(lab, ladder, store, identity, hooks)
    plans, entries = list(plans), []
    trunk: Tickets | None = None
    parents: Tickets | None = None
    for level in range(len(ladder.counts) + 1):
        while True:
            plan = [plan for first, plan in plans if first <= level][-1]
            try:
                found, nodes = climb.level(plan, level, trunk, parents)
                break
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or plan.chunk == 1:
                    raise
                plans.append((level, plan._replace(chunk=plan.chunk // 2)))
                hooks.on_replan(*plans[-1])
        entries += found
        parents = gather(climb.starts.like, nodes, found, TICKET if level else DENSE)
        trunk = trunk or parents
    return entries


class _Climb:
    """One climb's fixed parts, and its programs, each compiled once and used at every level."""

    def __init__(
        self, lab: Lab, ladder: Ladder, store: Store, identity: dict[str, Any], hooks: Hooks
    ):
        self.lab, self.ladder, self.store, self.hooks = lab, ladder, store, hooks
        self.identity = identity
        self.starts = Starts(lab, ladder)
        self.segment = functools.cache(lambda plan: compile_segment(lab.trainer, plan))
        self.measure = functools.cache(lambda chunk: compile_measure(lab.trainer, chunk))

    def level(
        self, plan: Plan, level: int, trunk: Tickets | None, parents: Tickets | None
    ) -> tuple[list[Entry], list[Node]]:
        """Trains or reads all nodes of one level."""
        who = labels(self.lab, self.ladder, level)
        population = functools.cache(lambda: self.starts.population(level, trunk, parents))
        entries, nodes = [], []
        for rows in chunks(len(who), plan.chunk):
            mine = [who[i] for i in rows[: len(who) - rows[0]]]
            assignment = _assignment(self.ladder, level, mine)
            identity = _node_identity(self.ladder, plan, self.identity, assignment, trunk, parents)
            key = content_key(identity)

            def compute(partial: Any, rows: Any = rows, assignment: Any = assignment) -> Node:
                return train_node(
                    self.segment(plan),
                    self.measure(plan.chunk),
                    self.starts.take(population(), rows),
                    self.lab.data,
                    assignment,
                    prunable=self.ladder.prunable,
                    steps=self.lab.trainer.steps,
                    partial=partial,
                    on_progress=self.hooks.on_progress,
                )

            nodes.append(self.store.node(key, compute))
            arms = sorted({label.arm for label in mine})
            work = len(mine) * (assignment.stop - assignment.start)
            entries.append(Entry(key, level, arms, work))
            self.hooks.on_node(entries[-1])
        return entries, nodes


def _assignment(ladder: Ladder, level: int, mine: Sequence[Label]) -> Assignment:
    rewind = ladder.rewind
    snapshots = {"end": ladder.stop}
    if level == 0:
        snapshots["rewound"] = rewind.step
    if ladder.score_step != ladder.stop:
        snapshots["scored"] = ladder.score_step
    wanted = {"end": "keep", "rewound": "rewind"}
    return Assignment(
        level=level,
        labels=mine,
        start=0 if level == 0 else rewind.step,
        stop=ladder.stop,
        snapshots=snapshots,
        optimizer=[name for name, use in wanted.items() if rewind.optimizer == use],
    )


def _node_identity(ladder, plan, identity, assignment, trunk, parents) -> dict[str, Any]:
    """All that decides a node's numbers, as JSON."""
    what = {
        "identity": identity["trunk"],
        "plan": plan._asdict(),
        "members": [list(label) for label in assignment.labels],
        "level": assignment.level,
        "start": assignment.start,
        "stop": assignment.stop,
        "snapshots": assignment.snapshots,
        "optimizer": assignment.optimizer,
    }
    if assignment.level == 0:
        return what
    count = ladder.counts[assignment.level - 1]
    return what | {
        "ladder": identity["ladder"],
        "rewind": ladder.rewind._asdict(),
        "count": jax.tree.map(int, trees.to_named(count)),
        "trunk": trunk.keys,
        "parents": parents.keys,
    }


def gather(like: Any, nodes: Sequence[Node], entries: Sequence[Entry], arm: str) -> Tickets:
    """One arm's replicates, collected from the nodes of a level.

    Args:
      like: a population as shapes, whose structure the trees get.
      nodes: the level's nodes.
      entries: their manifest entries.
      arm: the arm.
    """
    members = [[m["arm"] == arm for m in node.meta["members"]] for node in nodes]
    picked = [
        (node.arrays, np.flatnonzero(mine)) for node, mine in zip(nodes, members, strict=True)
    ]
    picked = [(arrays, rows) for arrays, rows in picked if len(rows)]

    def collect(part: Callable[[Any], Any], target: Any) -> Any:
        named = [trees.index(part(arrays), rows) for arrays, rows in picked]
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *named)
        return trees.from_named(joined, target)

    def point(name: str) -> Point:
        def field(of: str) -> Any:
            kept = picked[0][0][name].get(of)  # a state that nobody wants is not in the node
            return collect(lambda arrays: arrays[name][of], getattr(like, of)) if kept else None

        return Point(field("params"), field("state") or {}, field("opt_state"))

    alive = [m["diverged_at"] is None for n in nodes for m in n.meta["members"] if m["arm"] == arm]
    return Tickets(
        mask=collect(lambda arrays: arrays["mask"], like.mask),
        alive=np.array(alive),
        points={n: point(n) for n in ("end", "rewound", "scored") if n in picked[0][0]},
        keys=[entry.key for entry in entries if arm in entry.arms],
    )
