"""Iterative pruning: rounds of train, prune and rewind, with controls for each ticket.

Level 0 holds one dense network per replicate, shared by all other levels. Each further level prunes
the tickets of the previous level, builds their controls, and trains the members of all experiments
as one population. A node of the store holds a chunk of a level. Members that are in the store
already are read, not trained.
"""

import functools
import gc
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax import keys, text, trees
from lth_jax.lottery.initial_states import InitialStates, Tickets
from lth_jax.lottery.member_index import MemberIndex
from lth_jax.lottery.member_table import (
    MemberSpec,
    MemberTable,
    Plans,
    check_experiments,
    plan_at,
    step_range,
)
from lth_jax.lottery.node_training import Assignment, OnBlock, OnProgress, train_node
from lth_jax.lottery.programs import Programs
from lth_jax.lottery.spec import Experiment, Label
from lth_jax.population.placement import Plan, halved
from lth_jax.population.segment import Member
from lth_jax.population.train_chunks import chunks
from lth_jax.schema import (
    VERSION,
    LevelEntry,
    NodeRecord,
    Unscored,
    joined,
    read_facts,
    read_record,
)
from lth_jax.store import SAVE_SECONDS, Node, Partial, Store, StoreError, content_key
from lth_jax.types import DENSE, TICKET, TrainState

LOG = logging.getLogger(__name__)

Begin = Callable[[int], tuple[Member, Member, list[Unscored | None]]]
"""`experiment -> (members on the host, their shapes, unscored)` at the start of a level.

See `InitialStates.population`.
"""


@text.with_short_repr
class Hooks(NamedTuple):
    """Callbacks of `run_ladder`; any of them may raise to stop it.

    Attributes:
      on_progress: called after each segment. If it raises `store.Interrupted` (in all processes of
        the team), the unfinished node is saved first, and nothing is trained twice.
      on_block: called after each block of an evaluation on streamed data; may raise likewise.
      on_node: `(i, entry)`, called for each node, read or trained, and each experiment `i` with
        members in it.
      on_replan: `(level, plan)`, called when a level restarts with a smaller chunk after running
        out of memory. It must record the plan and drop the entries of that level: member keys
        depend on the plan, so `on_node` is called again for all members of the level.
      on_level: `(level)`, called when a level is complete and will not restart.
    """

    on_progress: OnProgress = lambda progress: None
    on_block: OnBlock = lambda: None
    on_node: Callable[[int, LevelEntry], None] = lambda i, entry: None
    on_replan: Callable[[int, Plan], None] = lambda level, plan: None
    on_level: Callable[[int], None] = lambda level: None


SILENT = Hooks()


def run_ladder(
    experiments: Sequence[Experiment],
    *,
    store: Store,
    plans: Plans,
    hooks: Hooks = SILENT,
    programs: Programs | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> list[list[LevelEntry]]:
    """Trains the ladders of all experiments, level by level, as one population.

    Members that the store holds are read instead of trained. Several processes may run the same
    experiments in one store: each chunk is trained by one process, and by another if the first is
    killed. The processes of the store's team train each chunk together.

    Args:
      experiments: at least one, with equal trainers, constants, data and steps of a level.
      store: holds the finished nodes.
      plans: `(level, the plan from that level on)`, the first for level 0; later entries replace
        earlier ones. See `population.level_plans`.
      hooks: the callbacks.
      programs: the programs of the trainer, to share them between ladders.
      save_seconds: seconds of training that a kill may repeat, or one segment if that is longer; 0
        saves each segment.

    Returns:
      The manifest of each experiment: its entries for all nodes, in order.

    Raises:
      ValueError: the experiments cannot run as one population; nothing has been trained.
    """
    check_experiments(experiments)
    programs = programs or Programs(experiments[0].task.trainer)
    ladder_run = _LadderRun(experiments, plans, store, hooks, programs, save_seconds)
    for level in range(len(ladder_run.table.levels)):
        while True:
            plan = plan_at(ladder_run.plans, level)
            try:
                ladder_run.level(plan, level)
                break
            except jax.errors.JaxRuntimeError as error:
                smaller = halved(plan)
                alone = store.team.count == 1  # other processes may not have run out of memory
                if "RESOURCE_EXHAUSTED" not in str(error) or smaller is None or not alone:
                    raise
                ladder_run.restart(level, smaller)
                hooks.on_replan(level, smaller)
            gc.collect()  # arrays of the failed chunk that only the error's traceback held
        hooks.on_level(level)
    return ladder_run.entries


class _LadderRun:
    """One call of `run_ladder`: its members, the index of finished ones, and initial states."""

    def __init__(
        self,
        experiments: Sequence[Experiment],
        plans: Plans,
        store: Store,
        hooks: Hooks,
        programs: Programs,
        save_seconds: float,
    ):
        self.experiments, self.store = experiments, store
        self.hooks, self.programs = hooks, programs
        self.save_seconds = save_seconds
        self.index = MemberIndex(store)
        self.initial = InitialStates(experiments, programs)
        self.entries: list[list[LevelEntry]] = [[] for _ in experiments]
        self.follow(plans)

    def follow(self, plans: Plans) -> None:
        """Sets the plans and the member keys, which depend on them."""
        self.plans, self.table = plans, MemberTable(self.experiments, plans)

    def restart(self, level: int, plan: Plan) -> None:
        """Drops the entries of a level and replans it."""
        self.entries = [[e for e in listed if e.level != level] for listed in self.entries]
        self.follow([*self.plans, (level, plan)])

    def level(self, plan: Plan, level: int) -> None:
        """Trains or reads all members of one level."""
        specs = self.table.levels[level]
        for node in self._found(specs):
            self._note(level, node)
        todo = self._missing(plan, specs.values())
        begin = self._beginning(plan, level)
        # First the nodes that no other process trains; then wait for the others.
        for wait in (False, True):
            for node in list(todo):
                compute = functools.partial(self._train, plan, level, todo[node], begin)
                if self.store.ensure(node, compute, wait=wait):
                    del todo[node]
                    self.index.add(node)
                    self._note(level, node)

    def _found(self, specs: Any) -> list[str]:
        """The nodes that hold members of a level; damaged ones are removed first."""
        while True:
            self.index.refresh()
            slots = [slot for key in specs if (slot := self.index.find(key))]
            nodes = list(dict.fromkeys(slot.node for slot in slots))
            if all([self.store.mend(node) for node in nodes]):
                return nodes
            self.index.forget()

    def _missing(self, plan: Plan, specs: Any) -> dict[str, list[MemberSpec]]:
        """The nodes to train, and their members."""
        missing = [spec for spec in specs if self.index.find(spec.key) is None]
        grouped = [missing[i : i + plan.chunk] for i in range(0, len(missing), plan.chunk)]
        keys = [[spec.key for spec in group] for group in grouped]
        nodes = [content_key({"members": key, "version": VERSION}) for key in keys]
        return dict(zip(nodes, grouped, strict=True))

    def _train(
        self, plan: Plan, level: int, specs: list[MemberSpec], begin: Begin, partial: Partial
    ) -> Node:
        task, _, ladder, _ = self.experiments[0]
        method = ladder.methods.get(level)
        [rows] = chunks(len(specs), plan.chunk)
        members, unscored = self._chunk([specs[row] for row in rows], level, begin)
        _warn(level, specs, unscored)
        return train_node(
            self.programs.segment(plan, method),
            self.programs.measure(plan, method),
            members,
            task.data,
            Assignment(level, specs, step_range(ladder, level), unscored),
            prunable=ladder.prunable,
            eval_every=task.trainer.eval_every,
            serve=self.programs.serve,
            partial=partial,
            on_progress=self.hooks.on_progress,
            on_block=self.hooks.on_block,
            save_seconds=self.save_seconds,
            constants=task.trainer.constants,
        )

    def _beginning(self, plan: Plan, level: int) -> Begin:
        """The initial members of each experiment at a level; the last result is cached."""
        most = max(one.seeds.replicates for one in self.experiments)
        nodes_of_one = 1 + -(-most // plan.chunk)
        read = functools.lru_cache(maxsize=2 * nodes_of_one)(
            functools.partial(read_record, self.store)
        )

        @functools.lru_cache(maxsize=1)
        def begin(i: int) -> tuple[Member, Member, list[Unscored | None]]:
            trunk = self._tickets(read, i, 0) if level else None
            parents = self._tickets(read, i, level - 1) if level else None
            members, unscored = self.initial.population(i, level, trunk, parents)
            shapes = jax.eval_shape(lambda tree: tree, members)
            return jax.tree.map(np.asarray, keys.to_data(members)), shapes, unscored

        return begin

    def _chunk(
        self, specs: Sequence[MemberSpec], level: int, begin: Begin
    ) -> tuple[Member, list[Unscored | None]]:
        """The initial members of one chunk, each from the first of its experiments."""
        parts, unscored = [], []
        for i, group in itertools.groupby(specs, key=lambda spec: spec.experiments[0]):
            order = list(self.table.keys[i][level].values())
            rows = [order.index(spec.key) for spec in group]
            members, shapes, found = begin(i)
            parts.append(trees.index(members, rows))
            unscored += [found[row] for row in rows]
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        # `jnp.array` compiles a program for each shape (jax 0.10.2).
        return keys.from_data(jax.device_put(joined), shapes), unscored

    def _tickets(self, read: Callable[[str], NodeRecord], i: int, level: int) -> Tickets:
        """An experiment's tickets of a level, or its dense networks, read from the store."""
        arm, of_level = TICKET if level else DENSE, self.table.keys[i][level]
        replicates = range(self.experiments[i].seeds.replicates)
        mine = [of_level[Label(arm, replicate)] for replicate in replicates]
        slots = [slot for key in mine if (slot := self.index.find(key))]
        if len(slots) < len(mine):
            raise StoreError(
                f"{self.store.root} lost networks of level {level} during the run; the same "
                "command trains them again."
            )
        found = itertools.groupby(slots, key=lambda slot: slot.node)
        parts = [read(node).take([slot.row for slot in group]) for node, group in found]
        return gather(self.initial.like, parts)

    def _note(self, level: int, node: str) -> None:
        """Adds a node to the manifests of the experiments with members in it."""
        specs, steps = self.table.levels[level], step_range(self.experiments[0].ladder, level)
        shares: dict[int, list[tuple[int, MemberSpec]]] = {}
        for row, member in enumerate(read_facts(self.store, node).members):
            if member.key in specs and self.index.find(member.key) == (node, row):
                for i in specs[member.key].experiments:
                    shares.setdefault(i, []).append((row, specs[member.key]))
        for i, share in shares.items():
            order = list(self.table.keys[i][level].values())
            own = sum(spec.experiments[0] == i for _, spec in share)
            entry = LevelEntry(
                key=node,
                level=level,
                arms=sorted({spec.label.arm for _, spec in share}),
                rows=[row for row, _ in share],
                member_steps=own * (steps.stop - steps.start),
                place=min(order.index(spec.key) for _, spec in share),
            )
            self.entries[i].append(entry)
            self.hooks.on_node(i, entry)


def _warn(level: int, specs: Sequence[MemberSpec], unscored: Sequence[Unscored | None]) -> None:
    """Logs the members of a node that are not trained, with the reason."""
    for spec, found in zip(specs, unscored, strict=False):
        if found is not None:
            LOG.warning(
                "Level %d, '%s' of replicate %d is not trained: %s",
                *(level, *spec.label, found.sentence),
            )


def gather(like: Member, found: Sequence[NodeRecord]) -> Tickets:
    """The replicates of one arm, collected from the nodes of a level.

    Args:
      like: the shapes of a population, for the structure of the trees.
      found: the rows of the nodes, in the order of replicates.
    """
    whole = joined(found)

    def point(named: TrainState) -> TrainState:
        slots = named.opt_state  # only in nodes that a later level rewinds to
        return TrainState(
            trees.from_named(named.params, like.params),
            trees.from_named(named.state, like.state),
            trees.from_named(slots, like.opt_state) if slots else None,
        )

    return Tickets(
        mask=trees.from_named(whole.mask, like.mask),
        alive=np.array([member.diverged_at is None for member in whole.facts.members]),
        points={name: point(named) for name, named in whole.points.items()},
        unscored=[member.unscored for member in whole.facts.members],
    )
