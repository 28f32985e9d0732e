"""Iterative pruning: train, prune, rewind, again, with each ticket's controls beside it.

Level 0 is the trunk: one dense parent per replicate, shared by everything above it. Each further
level prunes the tickets of the level before, builds their controls, and trains all of them as one
population. Every chunk of every level is a node of the store, keyed by all that decides its
numbers; a node that exists is read, not trained.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lth_jax import trees
from lth_jax.lottery.controls import CONTROLS, check_controls
from lth_jax.lottery.keys import derive
from lth_jax.lottery.level import (
    Assignment,
    Data,
    Label,
    OnProgress,
    compile_measure,
    train_node,
)
from lth_jax.lottery.rewind import (
    Point,
    Rewind,
    check_rewind,
    cursor_offsets,
    fill_pruned,
    start_point,
)
from lth_jax.pruning.masks import apply_mask
from lth_jax.store import Node, Store, content_key
from lth_jax.training.population import Plan, chunks, compile_segment
from lth_jax.training.segment import Member, Trainer, init_member
from lth_jax.types import Count, Key, Mask, Params, Prunable

DENSE, TICKET = "dense", "ticket"


class Lab(NamedTuple):
    """What an experiment trains with.

    Attributes:
      trainer: network, optimizer, loss, data order: the static part.
      data: the three splits on the device.
      root: the experiment's key.
      replicates: how many independent seeds.
      hyper: scalars shared by all members; must hold `learning_rate`.
    """

    trainer: Trainer
    data: Data
    root: Key
    replicates: int
    hyper: dict[str, float]


class Ladder(NamedTuple):
    """What is done with it.

    Attributes:
      counts: how many weights each level from 1 on keeps, as its scope counts them (int32).
      pruner: from `lth_jax.prune`.
      prunable: which leaves may be pruned.
      rewind: what is set back between levels.
      controls: names of the arms trained beside each ticket.
      stop: the steps of one training.
      score_step: the step at which the criterion sees the parameters; at most `stop`.
      control_levels: the levels at which controls are trained; None for all.
      batches: what a criterion that needs data gets.
    """

    counts: Sequence[Count]
    pruner: Callable[..., Mask]
    prunable: Prunable
    rewind: Rewind
    controls: Sequence[str]
    stop: int
    score_step: int
    control_levels: frozenset[int] | None = None
    batches: Any = None


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


def check_ladder(lab: Lab, ladder: Ladder) -> None:
    """Raises `ValueError` for a ladder that cannot be climbed, before anything is trained."""
    if lab.replicates < 1:
        raise ValueError(f"`replicates` is {lab.replicates}; at least 1 is needed.")
    if not ladder.counts:
        raise ValueError("`levels` is 0; a ladder needs at least 1 level.")
    if ladder.stop < 1:
        raise ValueError(f"`steps` is {ladder.stop}; it must be at least 1.")
    check_rewind(ladder.rewind, ladder.stop)
    if not ladder.rewind.step < ladder.score_step <= ladder.stop:
        raise ValueError(
            f"`score_step` is {ladder.score_step}; it must be above the rewind step, "
            f"{ladder.rewind.step}, and at most the last step, {ladder.stop}."
        )
    check_controls(ladder.controls)


def level_sizes(lab: Lab, ladder: Ladder) -> list[int]:
    """How many members each level trains."""
    return [len(labels(lab, ladder, level)) for level in range(len(ladder.counts) + 1)]


def dense_members(lab: Lab) -> Member:
    """The dense parents at step 0, one per replicate, stacked: the population of level 0."""
    keys = [_replicate_keys(lab, purpose) for purpose in ("init", "data")]
    return jax.jit(jax.vmap(lambda i, d: _dense(lab, i, d)))(*keys)


def labels(lab: Lab, ladder: Ladder, level: int) -> list[Label]:
    """The members of a level: arm by arm, the tickets first."""
    arms = [DENSE] if level == 0 else [TICKET, *_controls_at(ladder, level)]
    return [Label(arm, replicate) for arm in arms for replicate in range(lab.replicates)]


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
    plans = list(plans)
    entries: list[Entry] = []
    trunk: _Tickets | None = None
    parents: _Tickets | None = None
    compiled = _Compiled(lab, ladder)
    for level in range(len(ladder.counts) + 1):
        while True:
            plan = [plan for first, plan in plans if first <= level][-1]
            try:
                found, nodes = _level(compiled, store, plan, identity, level, trunk, parents, hooks)
                break
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or plan.chunk == 1:
                    raise
                plans.append((level, plan._replace(chunk=plan.chunk // 2)))
                hooks.on_replan(*plans[-1])
        entries += found
        parents = _tickets(compiled, nodes, found, DENSE if level == 0 else TICKET)
        trunk = trunk or parents
    return entries


class _Tickets(NamedTuple):
    """What the next level needs of the tickets of a level; replicates along the first axis."""

    mask: Mask
    alive: jax.Array
    points: dict[str, Point]
    keys: list[str]


class _Compiled:
    """The programs of one climb, each compiled at its first call and reused at every level."""

    def __init__(self, lab: Lab, ladder: Ladder):
        self.lab, self.ladder = lab, ladder
        self.segments: dict[Plan, Any] = {}
        self.measures: dict[int, Any] = {}
        self.dense = _jit_once(jax.vmap(lambda i, d: _dense(lab, i, d)))
        self.take = _jit_once(trees.index)
        self.begin = {
            names: _jit_once(self._begin(names))
            for names in {_controls_at(ladder, level) for level in range(1, len(ladder.counts) + 1)}
        }
        keys = self.keys("init")
        self.like = jax.eval_shape(self.dense, keys, keys)

    def segment(self, plan: Plan) -> Any:
        if plan not in self.segments:
            self.segments[plan] = compile_segment(self.lab.trainer, plan)
        return self.segments[plan]

    def measure(self, chunk: int) -> Any:
        if chunk not in self.measures:
            self.measures[chunk] = compile_measure(self.lab.trainer, chunk)
        return self.measures[chunk]

    def keys(self, purpose: str, level: int = 0) -> Key:
        return _replicate_keys(self.lab, purpose, level)

    def _begin(self, names: tuple[str, ...]) -> Any:
        """`(count, start, dense, redrawn) -> members`: a level's population, arm after arm."""

        def arms(count: Count, start: _Start, dense: Member, redrawn: Member) -> list[Member]:
            return _arms(self.lab, self.ladder, names, count, start, dense, redrawn)

        def begin(*args: Any) -> Member:
            members = jax.vmap(arms, in_axes=(None, 0, 0, 0))(*args)
            return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *members)

        return begin


def _jit_once(f: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` for programs that run once a level.

    On a CPU compiling them costs more than running them, so LLVM is asked not to optimise: three
    times faster to compile.
    """
    fast = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(f, compiler_options=fast)


def _replicate_keys(lab: Lab, purpose: str, level: int = 0) -> Key:
    """One key per replicate, stacked."""
    return jnp.stack([derive(lab.root, r, purpose, level) for r in range(lab.replicates)])


class _Start(NamedTuple):
    """What a replicate's arms descend from; in a population every leaf has its axis first."""

    mask: Mask
    alive: jax.Array
    parent: Point
    scored: Params
    rewound: Point
    prune_key: Key
    control_keys: dict[str, Key]


def _controls_at(ladder: Ladder, level: int) -> tuple[str, ...]:
    if level == 0 or (ladder.control_levels is not None and level not in ladder.control_levels):
        return ()
    return tuple(ladder.controls)


def _dense(lab: Lab, init_key: Key, data_key: Key) -> Member:
    example = jax.tree.map(lambda a: a[:1], lab.data.train.x)
    hyper = {name: jnp.asarray(value, jnp.float32) for name, value in lab.hyper.items()}
    return init_member(lab.trainer, init_key, data_key, hyper, example)


def _arms(
    lab: Lab,
    ladder: Ladder,
    names: Sequence[str],
    count: Count,
    start: _Start,
    dense: Member,
    redrawn: Member,
) -> list[Member]:
    """A replicate's ticket and its controls, in this order, at the start of a level.

    Args:
      lab: what to train with.
      ladder: what to do.
      names: the controls.
      count: what the level keeps.
      start: the parents.
      dense: the replicate's own network at step 0, with this level's keys and hyperparameters.
      redrawn: a network from another key, for the controls that want one.
    """
    scored = trees.where(start.alive, start.scored, start.rewound.params)  # no NaN in the scores
    mask = ladder.pruner(
        scored,
        start.mask,
        count,
        prunable=ladder.prunable,
        key=start.prune_key,
        batches=ladder.batches,
        initial=start.rewound.params,
    )
    point = start_point(ladder.rewind, start.rewound, start.parent, _point(dense))
    if ladder.rewind.what != "weights":
        filled = fill_pruned(point.params, start.mask, start.rewound.params)
        point = point._replace(params=filled)
    base = dense._replace(alive=start.alive)
    members = [_member(lab, base, mask, point)]
    for name in names:
        broken = CONTROLS[name](
            mask, point, _point(redrawn), key=start.control_keys[name], prunable=ladder.prunable
        )
        init_key = redrawn.init_key if name == "reinit" else dense.init_key
        members.append(_member(lab, base._replace(init_key=init_key), *broken))
    return members


def _point(member: Member) -> Point:
    return Point(member.params, member.state, member.opt_state)


def _member(lab: Lab, base: Member, mask: Mask, point: Point) -> Member:
    """`base` at `point`, with the mask put onto its parameters and the optimizer's slots."""
    slots = optax.tree.map_params(
        lab.trainer.make_optimizer(lab.hyper),
        lambda slot, m: jnp.where(m, slot, jnp.zeros_like(slot)),
        point.opt_state,
        mask,
    )
    params = apply_mask(mask, point.params)
    return base._replace(mask=mask, params=params, state=point.state, opt_state=slots)


def _population(
    compiled: _Compiled, level: int, trunk: _Tickets | None, parents: _Tickets | None
) -> Member:
    """All members of a level at their start, stacked in the order of `labels`."""
    lab, ladder = compiled.lab, compiled.ladder
    data_keys = compiled.keys("data", level if ladder.rewind.data == "fresh" else 0)
    dense = compiled.dense(compiled.keys("init"), data_keys)
    if trunk is None or parents is None:
        return dense
    names = _controls_at(ladder, level)
    start = _Start(
        mask=parents.mask,
        alive=parents.alive,
        parent=parents.points["end"],
        scored=parents.points.get("scored", parents.points["end"]).params,
        rewound=trunk.points["rewound"],
        prune_key=compiled.keys("prune", level),
        control_keys={name: compiled.keys(name, level) for name in names},
    )
    offsets = {
        name: np.full(lab.replicates, value, np.int32)
        for name, value in cursor_offsets(ladder.rewind, ladder.stop, level).items()
    }
    dense = dense._replace(hyper=dense.hyper | offsets)
    redrawn = compiled.dense(compiled.keys("redraw", level), data_keys)
    return compiled.begin[names](ladder.counts[level - 1], start, dense, redrawn)


def _level(compiled, store, plan, identity, level, trunk, parents, hooks):
    """Trains or reads all nodes of one level."""
    lab, ladder = compiled.lab, compiled.ladder
    who = labels(lab, ladder, level)
    members: list[Member] = []  # made once, and only if a node is missing
    entries, nodes = [], []
    for rows in chunks(len(who), plan.chunk):
        mine = [who[i] for i in rows[: len(who) - rows[0]]]
        assignment = _assignment(ladder, level, mine)
        key = content_key(_node_identity(ladder, plan, identity, assignment, trunk, parents))

        def compute(partial: Any, rows: Any = rows, assignment: Any = assignment) -> Node:
            if not members:
                members.append(_population(compiled, level, trunk, parents))
            return train_node(
                compiled.segment(plan),
                compiled.measure(plan.chunk),
                compiled.take(members[0], rows),
                lab.data,
                assignment,
                prunable=ladder.prunable,
                steps=lab.trainer.steps,
                partial=partial,
                on_progress=hooks.on_progress,
            )

        nodes.append(store.node(key, compute))
        arms = sorted({label.arm for label in mine})
        work = len(mine) * (assignment.stop - assignment.start)
        entries.append(Entry(key, level, arms, work))
        hooks.on_node(entries[-1])
    return entries, nodes


def _assignment(ladder: Ladder, level: int, mine: Sequence[Label]) -> Assignment:
    snapshots = {"rewound": ladder.rewind.step} if level == 0 else {}
    if ladder.score_step != ladder.stop:
        snapshots["scored"] = ladder.score_step
    return Assignment(
        level=level,
        labels=mine,
        start=0 if level == 0 else ladder.rewind.step,
        stop=ladder.stop,
        snapshots=snapshots,
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


def _tickets(compiled: _Compiled, nodes: Sequence[Node], entries: Sequence[Entry], arm: str):
    """Gathers one arm's replicates from the nodes of a level."""
    picked = []
    for node in nodes:
        rows = [i for i, member in enumerate(node.meta["members"]) if member["arm"] == arm]
        picked.append((node, np.array(rows, int)))
    picked = [(node, rows) for node, rows in picked if len(rows)]
    like = compiled.like

    def gather(part: Any, target: Any) -> Any:
        named = [trees.index(part(node.arrays), rows) for node, rows in picked]
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *named)
        return trees.from_named(joined, target)

    def point(name: str) -> Point:
        return Point(
            *(
                gather(lambda arrays, f=f: arrays[name].get(f, {}), getattr(like, f))
                for f in Point._fields
            )
        )

    members = [m for node in nodes for m in node.meta["members"] if m["arm"] == arm]
    return _Tickets(
        mask=gather(lambda arrays: arrays["mask"], like.mask),
        alive=np.array([m["diverged_at"] is None for m in members]),
        points={n: point(n) for n in ("end", "rewound", "scored") if n in picked[0][0].arrays},
        keys=[entry.key for entry in entries if arm in entry.arms],
    )
