"""Iterative pruning: train, prune, rewind, again, with each ticket's controls beside it.

Level 0 is the trunk: one dense parent per replicate, shared by everything above it. Each further
level prunes the tickets of the level before, builds their controls, and trains all of them, of all
cells, as one population. A chunk of a level is a node of the store; a member that some node holds
already is read, not trained.
"""

import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.lottery.level import Assignment, OnBlock, OnProgress, train_node
from lth_jax.lottery.programs import Programs
from lth_jax.lottery.rewind import Point
from lth_jax.lottery.roster import Cell, Entrant, Plans, Roster, check_cells, course
from lth_jax.lottery.spec import Label
from lth_jax.lottery.starts import Starts, Tickets, Unscored
from lth_jax.store import SAVE_SECONDS, MemberIndex, Node, Partial, Store, content_key
from lth_jax.training.placement import Plan, halved
from lth_jax.training.population import chunks
from lth_jax.training.segment import Member
from lth_jax.types import DENSE, TICKET

LOG = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A line of a run's manifest: one node, its level, and which of its members are the run's.

    Attributes:
      key: the node.
      level: its level.
      arms: the arms that the run has in it.
      rows: the run's members, as places on the node's member axis.
      member_steps: the work in them; what several cells share counts for the first.
      place: that of the first of them among the run's members of the level, by which entries are
        in order, whichever was found or trained first.
    """

    key: str
    level: int
    arms: list[str]
    rows: list[int]
    member_steps: int
    place: int


class Hooks(NamedTuple):
    """What the ladder tells its caller, who may raise from any of them to stop it.

    Attributes:
      on_progress: after each segment. If it raises `store.Interrupted` (in all processes of the
        team alike), the unfinished node is saved first, and nothing is trained twice.
      on_block: after each block of an evaluation on streamed data; likewise.
      on_node: `(cell, entry)` for each node, found or trained, and each cell with members in it.
      on_replan: `(level, plan)` when memory ran out and a level starts again at a smaller chunk.
        It must record the plan and drop the entries of that level before it returns: `on_node` is
        called for all members of the level again, since under another plan they are others.
      on_level: `(level)` when a level is complete and cannot start again.
    """

    on_progress: OnProgress = lambda progress: None
    on_block: OnBlock = lambda: None
    on_node: Callable[[int, Entry], None] = lambda cell, entry: None
    on_replan: Callable[[int, Plan], None] = lambda level, plan: None
    on_level: Callable[[int], None] = lambda level: None


SILENT = Hooks()


def climb(
    cells: Sequence[Cell],
    *,
    store: Store,
    plans: Plans,
    hooks: Hooks = SILENT,
    programs: Programs | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> list[list[Entry]]:
    """Trains, or reads, the ladders of all cells, level by level as one population.

    Several processes may climb the same cells in one store: each chunk is trained by one of them,
    and that of a process that was killed is taken over by another. The processes of the store's
    team climb together, in step.

    Args:
      cells: the experiments, at least one; they share trainer, data and the steps of a level.
      store: where finished nodes are and go.
      plans: `(level, plan)` in ascending order, the first for level 0: the plan from that level
        on. More than one only where memory ran out.
      hooks: whom to tell.
      programs: those of the cells' trainer, if other climbs use them too.
      save_seconds: how much training a kill may repeat (or one segment, where that is longer); 0:
        each segment is saved.

    Returns:
      The manifest of each cell: its part of every node, in order.

    Raises:
      ValueError: for cells that cannot climb together, before anything is trained.
    """
    check_cells(cells)
    programs = programs or Programs(cells[0].lab.trainer)
    climbing = _Climb(cells, plans, store, hooks, programs, save_seconds)
    for level in range(len(climbing.roster.levels)):
        while True:
            plan = [plan for first, plan in climbing.plans if first <= level][-1]
            try:
                climbing.level(plan, level)
                break
            except jax.errors.JaxRuntimeError as error:
                smaller = halved(plan)
                alone = store.team.count == 1  # of several processes others may have had enough
                if "RESOURCE_EXHAUSTED" not in str(error) or smaller is None or not alone:
                    raise
                climbing.restart(level, smaller)
                hooks.on_replan(level, smaller)
        hooks.on_level(level)
    return climbing.entries


class _Climb:
    """One climb: who its members are, where those that are finished lie, and how others begin."""

    def __init__(
        self,
        cells: Sequence[Cell],
        plans: Plans,
        store: Store,
        hooks: Hooks,
        programs: Programs,
        save_seconds: float,
    ):
        self.cells, self.store, self.hooks, self.programs = cells, store, hooks, programs
        self.save_seconds = save_seconds
        self.index = MemberIndex(store)
        self.starts = Starts(cells, programs)
        self.entries: list[list[Entry]] = [[] for _ in cells]
        self.follow(plans)

    def follow(self, plans: Plans) -> None:
        """Goes on by other plans: members of the levels that they change are others."""
        self.plans, self.roster = plans, Roster(self.cells, plans)

    def restart(self, level: int, plan: Plan) -> None:
        """Forgets what was listed of a level, whose members from now on are those of this plan."""
        self.entries = [[e for e in listed if e.level != level] for listed in self.entries]
        self.follow([*self.plans, (level, plan)])

    def level(self, plan: Plan, level: int) -> None:
        """Trains or reads all members of one level."""
        entrants = self.roster.levels[level]
        for node in self._found(entrants):
            self._tell(level, node)
        todo = self._missing(plan, entrants.values())
        begin = self._beginning(plan, level)
        # First what nobody else is at; then what others had, should they not have finished it.
        for wait in (False, True):
            for node in list(todo):
                compute = functools.partial(self._train, plan, level, todo[node], begin)
                if self.store.ensure(node, compute, wait=wait):
                    del todo[node]
                    self.index.add(node)
                    self._tell(level, node)

    def _found(self, entrants: Any) -> list[str]:
        """The nodes that hold members of a level; those that are damaged are removed first."""
        while True:
            self.index.refresh()
            seats = [seat for key in entrants if (seat := self.index.find(key))]
            nodes = list(dict.fromkeys(seat.node for seat in seats))
            if all([self.store.mend(node) for node in nodes]):
                return nodes
            self.index.forget()

    def _missing(self, plan: Plan, entrants: Any) -> dict[str, list[Entrant]]:
        """The nodes to be trained, and who is in them."""
        missing = [entrant for entrant in entrants if self.index.find(entrant.key) is None]
        grouped = [missing[i : i + plan.chunk] for i in range(0, len(missing), plan.chunk)]
        keys = [[entrant.key for entrant in group] for group in grouped]
        nodes = [content_key({"members": key}) for key in keys]
        return dict(zip(nodes, grouped, strict=True))

    def _train(
        self,
        plan: Plan,
        level: int,
        entrants: list[Entrant],
        begin: Callable[[int], tuple[Member, list[Unscored]]],
        partial: Partial,
    ) -> Node:
        lab, ladder, _ = self.cells[0]
        [rows] = chunks(len(entrants), plan.chunk)
        members, unscored = self._chunk([entrants[row] for row in rows], level, begin)
        _warn(level, entrants, unscored)
        return train_node(
            self.programs.segment(plan),
            self.programs.measure(plan),
            members,
            lab.data,
            Assignment(level, entrants, course(ladder, level), unscored),
            prunable=ladder.prunable,
            steps=lab.trainer.steps,
            serve=self.programs.serve,
            partial=partial,
            on_progress=self.hooks.on_progress,
            on_block=self.hooks.on_block,
            save_seconds=self.save_seconds,
        )

    def _beginning(self, plan: Plan, level: int) -> Callable[[int], tuple[Member, list[Unscored]]]:
        """`cell -> its members` at the start of a level, on the host; the last one is kept.

        With them goes what `Starts.population` finds about their scores.
        """
        most = max(cell.lab.replicates for cell in self.cells)
        nodes_of_a_cell = 1 + -(-most // plan.chunk)
        read = functools.lru_cache(maxsize=2 * nodes_of_a_cell)(self.store.read)

        @functools.lru_cache(maxsize=1)
        def begin(cell: int) -> tuple[Member, list[Unscored]]:
            trunk = self._tickets(read, cell, 0) if level else None
            parents = self._tickets(read, cell, level - 1) if level else None
            members, unscored = self.starts.population(cell, level, trunk, parents)
            return _on_host(members), unscored

        return begin

    def _chunk(
        self,
        entrants: Sequence[Entrant],
        level: int,
        begin: Callable[[int], tuple[Member, list[Unscored]]],
    ) -> tuple[Member, list[Unscored]]:
        """The members of one chunk, each taken from the level of the cell that makes it."""
        parts, unscored = [], []
        for cell, group in itertools.groupby(entrants, key=lambda entrant: entrant.cells[0]):
            order = list(self.roster.keys[cell][level].values())
            rows = [order.index(entrant.key) for entrant in group]
            members, found = begin(cell)
            parts.append(trees.index(members, rows))
            unscored += [found[row] for row in rows]
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        return _on_device(joined, self.starts.like), unscored

    def _tickets(self, read: Callable[[str], Node], cell: int, level: int) -> Tickets:
        """A cell's tickets of a level, or its dense parents, read from the store."""
        arm, keys = TICKET if level else DENSE, self.roster.keys[cell][level]
        mine = [keys[Label(arm, r)] for r in range(self.cells[cell].lab.replicates)]
        seats = [self.index.find(key) for key in mine]
        found = itertools.groupby(filter(None, seats), key=lambda seat: seat.node)
        return gather(
            self.starts.like, [(read(node), [seat.row for seat in group]) for node, group in found]
        )

    def _tell(self, level: int, node: str) -> None:
        """Writes down and tells whose members a node holds."""
        entrants, steps = self.roster.levels[level], course(self.cells[0].ladder, level)
        shares: dict[int, list[tuple[int, Entrant]]] = {}
        for row, key in enumerate(self.store.facts(node)["member_keys"]):
            if key in entrants and self.index.find(key) == (node, row):
                for cell in entrants[key].cells:
                    shares.setdefault(cell, []).append((row, entrants[key]))
        for cell, share in shares.items():
            order = list(self.roster.keys[cell][level].values())
            own = sum(entrant.cells[0] == cell for _, entrant in share)
            entry = Entry(
                key=node,
                level=level,
                arms=sorted({entrant.label.arm for _, entrant in share}),
                rows=[row for row, _ in share],
                member_steps=own * (steps.stop - steps.start),
                place=min(order.index(entrant.key) for _, entrant in share),
            )
            self.entries[cell].append(entry)
            self.hooks.on_node(cell, entry)


def _warn(level: int, entrants: Sequence[Entrant], unscored: Sequence[Unscored]) -> None:
    """Logs which members of a node are not trained, and why."""
    for entrant, found in zip(entrants, unscored, strict=False):
        if found is not None:
            LOG.warning(
                "Level %d, '%s' of replicate %d is not trained: %s",
                *(level, *entrant.label, found["sentence"]),
            )


def _on_host(members: Member) -> Member:
    """Members as host arrays, their keys as key data."""

    def one(leaf: Any) -> np.ndarray:
        return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)

    return jax.tree.map(one, members)


def _on_device(members: Member, like: Member) -> Member:
    """The inverse of `_on_host`; `like` has keys, or their shapes, where the members had some."""

    def one(leaf: np.ndarray, target: Any) -> jax.Array:
        if not _is_key(target):
            return jnp.array(leaf)
        impl = jax.random.key_impl(jnp.empty((0,), target.dtype))
        return jax.random.wrap_key_data(jnp.asarray(leaf), impl=impl)

    return jax.tree.map(one, members, like)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def gather(like: Member, found: Sequence[tuple[Node, Sequence[int]]]) -> Tickets:
    """One arm's replicates, collected from the nodes of a level.

    Args:
      like: a population as shapes, whose structure the trees get.
      found: the nodes they are in, and their places there, replicate by replicate.
    """

    def collect(part: Callable[[Any], Any], target: Any) -> Any:
        named = [trees.index(part(node.arrays), np.asarray(rows)) for node, rows in found]
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *named)
        return trees.from_named(joined, target)

    first = found[0][0].arrays

    def point(name: str) -> Point:
        def field(of: str) -> Any:
            kept = first[name].get(of)  # a state that nobody wants is not in the node
            return collect(lambda arrays: arrays[name][of], getattr(like, of)) if kept else None

        return Point(field("params"), field("state") or {}, field("opt_state"))

    facts = [node.meta["members"][row] for node, rows in found for row in rows]
    return Tickets(
        mask=collect(lambda arrays: arrays["mask"], like.mask),
        alive=np.array([member["diverged_at"] is None for member in facts]),
        points={name: point(name) for name in ("end", "rewound", "scored") if name in first},
        unscored=[member["unscored"] for member in facts],
    )
