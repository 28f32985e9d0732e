"""One node of a ladder: trains, evaluates and records one chunk of a level."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lth_jax import keys, text, trees
from lth_jax.lottery.member_table import MemberSpec, StepRange
from lth_jax.population.placement import Plan, map_members
from lth_jax.population.segment import (
    Constants,
    Member,
    Record,
    Trainer,
    evaluate,
    evaluated_member,
    init_records,
    own_share,
    training_sample,
)
from lth_jax.population.streaming import OnHost, Serve, compile_streamed_evaluation
from lth_jax.population.train_chunks import Segment, segment_ends, train_chunk
from lth_jax.pruning import masks
from lth_jax.schema import LeafRecord, MemberRecord, NodeFacts, NodeRecord, Unscored, to_node
from lth_jax.store import (
    SAVE_SECONDS,
    Interrupted,
    Node,
    Partial,
    SaveTimer,
    is_distributed,
    to_host,
)
from lth_jax.types import Batch, Info, Mask, Prunable, Splits, TrainState


@text.with_short_repr
class Progress(NamedTuple):
    """Progress of a chunk after a segment.

    Attributes:
      level: the level of the chunk.
      densities: fraction of prunable weights kept, one for each member.
      specs: the members of the chunk, without padding.
      start: the first step of the level.
      before: the first step of this segment.
      step: the current step.
      stop: the last step of the level. The node is written after it.
      seconds: time spent on the node so far, earlier attempts included.
      info: the metrics of the segment, `[chunk]` each; the entries of padding come last.
    """

    level: int
    densities: Sequence[float]
    specs: Sequence[MemberSpec]
    start: int
    before: int
    step: int
    stop: int
    seconds: float
    info: Info


OnProgress = Callable[[Progress], None]
OnBlock = Callable[[], None]


class Assignment(NamedTuple):
    """The work of a node.

    Attributes:
      level: its level.
      specs: its members; padding members follow them and are dropped.
      steps: the steps to train, and the states to keep.
      unscored: for each member, padding included: set if the scores of its mask were invalid. Such
        a member is not alive from the start.
    """

    level: int
    specs: Sequence[MemberSpec]
    steps: StepRange
    unscored: Sequence[Unscored | None]


Measured = tuple[Info, TrainState, Mask]
"""Results by name, the evaluated network, and its mask."""


def measure(trainer: Trainer, member: Member, record: Record, data: Splits) -> Measured:
    """All results of one trained member, with the evaluated network and mask.

    `test_*_final` and `train_*_final` are evaluated at the last step; `test_*_early_stop` at
    `early_stop_step`, the step of the smallest validation loss, `validation_loss_best`. Missing
    results of a diverged member are NaN.
    """
    member = evaluated_member(trainer, member, data.train)
    final = evaluate(trainer, member.params, member.state, data.test)
    sample = training_sample(trainer, own_share(trainer, member, data.train))
    fitted = evaluate(trainer, member.params, member.state, sample)
    networks = (record.best_params, record.best_state), (member.params, member.state)
    best = lax.cond(
        trees.equal(*networks),  # often: skips a pass over the test data
        lambda: final,
        lambda: evaluate(trainer, record.best_params, record.best_state, data.test),
    )
    stopped = record.best_step >= 0

    def unless(bad: Any, values: Info, pattern: str) -> Info:
        return {pattern.format(k): jnp.where(bad, jnp.nan, v) for k, v in values.items()}

    results = (
        unless(~member.alive, final, "test_{}_final")
        | unless(~member.alive, fitted, "train_{}_final")
        | unless(~stopped, best, "test_{}_early_stop")
        | {
            "early_stop_step": jnp.where(stopped, record.best_step.astype(jnp.float32), jnp.nan),
            "validation_loss_best": jnp.where(stopped, record.best_loss, jnp.nan),
        }
    )
    if trainer.method is not None:
        results |= {"undecided_events": member.opt_state.undecided.astype(jnp.float32)}
    opt_state = member.opt_state if trainer.method is None else {}
    return results, TrainState(member.params, member.state, opt_state), member.mask


def compile_measure(trainer: Trainer, plan: Plan) -> Callable[..., Measured]:
    """`measure` of a whole chunk, as one compiled program; training data may be on the host.

    Returns:
      `(members, records, data, on_block) -> measured`; `on_block()` is called after each block of
      training data read from the host.
    """

    def run(member: Member, record: Record, data: Splits) -> Measured:
        return measure(trainer, member, record, data)

    at_once = jax.jit(map_members(run, plan, (True, True, False)))
    fit = compile_streamed_evaluation(trainer, plan)

    def measured(
        members: Member, records: Record, data: Splits, on_block: OnBlock = lambda: None
    ) -> Measured:
        if not isinstance(data.train, OnHost):
            measured: Measured = at_once(members, records, data)
            return measured
        nothing = data._replace(train=Batch(*no_rows(data.train)))
        results, end, mask = at_once(members, records, nothing)
        fitted = fit(members, data.train, on_block).items()
        alive = members.alive
        return (
            results | {f"train_{k}_final": jnp.where(alive, v, jnp.nan) for k, v in fitted},
            end,
            mask,
        )

    return measured


def no_rows(data: Batch) -> Batch:
    """An empty batch."""
    batch: Batch = jax.tree.map(lambda leaf: leaf[np.arange(0)], data)
    return batch


def train_node(
    segment: Segment,
    measure_chunk: Callable[..., Measured],
    members: Member,
    data: Splits,
    assignment: Assignment,
    *,
    prunable: Prunable,
    eval_every: int,
    serve: Serve,
    partial: Partial,
    on_progress: OnProgress,
    on_block: OnBlock = lambda: None,
    save_seconds: float = SAVE_SECONDS,
    constants: Constants = (),
) -> Node:
    """Trains one chunk to its end, resuming an interrupted attempt.

    The training state is saved by time (`SaveTimer`): after a kill, at most `save_seconds` of
    training are repeated, or one segment if that is longer. After `Interrupted`, raised by
    `on_progress` or `on_block`, nothing is repeated: the state is saved before the exception
    propagates. Results of resumed and uninterrupted training are equal bit for bit.

    Args:
      segment: the compiled program; its width is that of `members`.
      measure_chunk: from `compile_measure`.
      members: the initial chunk, padding included.
      data: train, validation and test.
      assignment: the work of the node.
      prunable: which leaves may be pruned, for the record.
      eval_every: steps per segment.
      serve: from `compile_serving`.
      partial: holds the unfinished node.
      on_progress: called after each segment. It may raise `Interrupted`, in all processes of the
        team.
      on_block: called between the blocks of an evaluation on streamed data; may raise likewise.
      save_seconds: seconds of training that a kill may repeat; 0 saves each segment.
      constants: the constants of the trainer.
    """
    timer = SaveTimer(save_seconds, partial.team)
    densities = _densities(assignment, members, prunable)
    journal = _Journal(assignment, partial, timer, eval_every, densities)
    records = init_records(members)
    start, members, records = journal.resume(members, records)

    ends = [end for end in journal.ends if end > start]

    def on_segment(step: int, members: Member, records: Record, info: Info) -> None:
        progress = journal.append(step, members, info)
        saved = journal.save_if_due(progress, members, records)
        try:
            on_progress(progress)
        except Interrupted:
            if not saved:
                journal.save(step, members, records)
            raise

    members, records = train_chunk(
        segment,
        members,
        records,
        data.train,
        data.validation,
        constants,
        start=start,
        ends=ends,
        on_segment=on_segment,
        blocks=serve(members, data.train, [start, *ends][:-1]),
    )
    try:
        results, end, mask = to_host(measure_chunk(members, records, data, on_block))
    except Interrupted:
        journal.save(assignment.steps.stop, members, records)
        raise
    journal.points["end"] = end  # the evaluated network, which may differ from the trained one
    return to_node(_record(journal, members, records, mask, results, prunable))


class _Journal:
    """Metrics and snapshots of a node's training, and their checkpoint in the store."""

    def __init__(
        self,
        assignment: Assignment,
        partial: Partial,
        timer: SaveTimer,
        eval_every: int,
        densities: Sequence[float],
    ):
        self.assignment, self._partial, self._timer = assignment, partial, timer
        self.densities = densities
        steps = assignment.steps
        self.ends = segment_ends(steps.start, steps.stop, eval_every, steps.snapshots.values())
        self.history: dict[str, list[np.ndarray]] = {}
        self.points: dict[str, TrainState] = {}
        self._spent, self._began = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent on the node so far, earlier attempts included."""
        return self._spent + time.perf_counter() - self._began

    def resume(self, members: Member, records: Record) -> tuple[int, Member, Record]:
        """The state of the latest saved segment, or the initial one."""
        steps = self.assignment.steps
        start = steps.start
        if (saved := self._partial.load()) is not None:
            start, tree, meta = saved
            members, records = _restored(members, records, tree["carry"])
            self.history = {name: list(rows) for name, rows in tree["history"].items()}
            named = tree.get("points", {})
            self.points = {name: _point(members, parts) for name, parts in named.items()}
            self._spent = meta["seconds"]
        self.points |= _due(steps, start, members)
        return start, members, records

    def append(self, step: int, members: Member, info: Info) -> Progress:
        """Adds a segment that ended at `step`."""
        steps = self.assignment.steps
        for name, value in to_host(info).items():
            self.history.setdefault(name, []).append(value)
        self.points |= _due(steps, step, members)
        return Progress(
            level=self.assignment.level,
            densities=self.densities,
            specs=self.assignment.specs,
            start=steps.start,
            before=max(end for end in [steps.start, *self.ends] if end < step),
            step=step,
            stop=steps.stop,
            seconds=self.seconds,
            info={name: rows[-1] for name, rows in self.history.items()},
        )

    def save_if_due(self, progress: Progress, members: Member, records: Record) -> bool:
        """Saves if due and not after the last segment; returns whether it saved."""
        following = min((end for end in self.ends if end > progress.step), default=None)
        if following is None:
            return False
        due = self._timer.due(progress.step - progress.before, following - progress.step)
        if due:
            self.save(progress.step, members, records)
        return due

    def save(self, step: int, members: Member, records: Record) -> None:
        """Saves the training state after `step` steps."""
        tree = {
            "carry": _carried(members, records),
            "history": {name: np.stack(rows) for name, rows in self.history.items()},
            "points": {name: _named_point(point)._asdict() for name, point in self.points.items()},
        }
        self._partial.save(step, tree, {"seconds": self.seconds})
        self._timer.saved()


def _record(
    journal: _Journal,
    members: Member,
    records: Record,
    mask: Mask,
    results: Info,
    prunable: Prunable,
) -> NodeRecord:
    """The record of the finished node, without padding."""
    assignment, steps = journal.assignment, journal.assignment.steps
    n = len(assignment.specs)
    alive, diverged = to_host((members.alive, records.diverged_at))
    # A member that was not alive at its start (child of a diverged ticket) diverged there.
    diverged = np.maximum(diverged, steps.start)
    densities = _densities(assignment, members._replace(mask=mask), prunable)
    named = trees.to_named(mask)
    leaves = zip(named.items(), jax.tree.leaves(prunable), strict=True)
    # The loss on the transformed training batches, wrong labels included.
    results = results | {"batch_loss_final": journal.history["train_loss"][-1]}
    return NodeRecord(
        facts=NodeFacts(
            level=assignment.level,
            members=tuple(
                MemberRecord(
                    key=spec.key,
                    arm=spec.label.arm,
                    replicate=spec.label.replicate,
                    density=densities[i],
                    diverged_at=None if alive[i] else int(diverged[i]),
                    unscored=assignment.unscored[i],
                )
                for i, spec in enumerate(assignment.specs)
            ),
            leaves=tuple(
                LeafRecord(name, tuple(leaf.shape[1:]), bool(may)) for (name, leaf), may in leaves
            ),
            steps=steps.stop - steps.start,
            seconds=journal.seconds,
        ),
        results={name: value[:n] for name, value in results.items()},
        eval_steps=np.array(journal.ends, np.int32),
        curves={name: np.stack(rows)[:, :n] for name, rows in journal.history.items()},
        mask=_first(n, named),
        points=_first(n, {k: _kept(steps, k, point) for k, point in journal.points.items()}),
    )


def _densities(assignment: Assignment, members: Member, prunable: Prunable) -> list[float]:
    each = jax.vmap(lambda mask: masks.density(mask, prunable))(members.mask)
    found: list[float] = np.asarray(each, float)[: len(assignment.specs)].tolist()
    return found


def _first(n: int, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:n], to_host(tree))


def _copy_point(members: Member, optimizer: bool) -> TrainState:
    """A copy of the state, whose buffers are donated to the next segment.

    It is on the host, or on the devices if the members are distributed over processes.
    """
    point = TrainState(members.params, members.state, members.opt_state if optimizer else {})
    copied: TrainState = jax.tree.map(
        lambda leaf: jnp.copy(leaf) if is_distributed(leaf) else np.array(leaf), point
    )
    return copied


def _due(steps: StepRange, step: int, members: Member) -> dict[str, TrainState]:
    due = [name for name, at in steps.snapshots.items() if at == step]
    return {name: _copy_point(members, name in steps.optimizer) for name in due}


def _kept(steps: StepRange, name: str, point: TrainState) -> TrainState:
    """The part of a state that the node keeps; the optimizer's state only if a level needs it."""
    parts = _named_point(point)
    return parts if name in steps.optimizer else parts._replace(opt_state={})


def _named_point(point: TrainState) -> TrainState:
    return TrainState(*map(trees.to_named, point))


def _point(members: Member, named: dict[str, dict[str, np.ndarray]]) -> TrainState:
    opt_state = members.opt_state if named.get("opt_state") else {}
    like = TrainState(members.params, members.state, opt_state)
    return TrainState(
        *(trees.from_named(named.get(f, {}), getattr(like, f)) for f in TrainState._fields)
    )


def _carried(members: Member, records: Record) -> dict[str, jax.Array]:
    """The arrays that a segment changes; all others are rebuilt on resuming."""
    return trees.to_named(keys.to_data(_changing(members, records)))


def _changing(members: Member, records: Record) -> tuple[Any, ...]:
    return members.params, members.state, members.opt_state, members.alive, records


def _restored(
    members: Member, records: Record, named: dict[str, np.ndarray]
) -> tuple[Member, Record]:
    like = _changing(members, records)
    loaded = jax.tree.map(jnp.asarray, trees.from_named(named, like))
    params, state, opt_state, alive, records = keys.from_data(loaded, like)
    return (members._replace(params=params, state=state, opt_state=opt_state, alive=alive), records)
