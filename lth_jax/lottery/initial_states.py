"""The initial members of a level: dense networks, tickets and controls."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.keys import derive_all
from lth_jax.lottery.programs import Programs, quick_to_compile
from lth_jax.lottery.rewind import cursor_offsets, fill_pruned, start_point
from lth_jax.lottery.spec import Experiment, Ladder, Seeds, controls_at
from lth_jax.population.segment import Member, Trainer, init_member, optimizer_of
from lth_jax.population.task import Task
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.scores import is_bad, names, reason, sentence
from lth_jax.pruning.transforms import mask_slots
from lth_jax.schema import Unscored
from lth_jax.store import content_key, to_host
from lth_jax.types import TICKET, Count, Info, Key, Mask, Params, TrainState


class Tickets(NamedTuple):
    """The tickets of a level, as inputs of the next; replicates along the first axis.

    Attributes:
      mask: their masks.
      alive: False for those that diverged.
      points: training states by name: `"end"`; at level 0 `"rewound"`; `"scored"` if the criterion
        uses an earlier step than the end.
      unscored: set where the scores of the ticket or of an ancestor were invalid.
    """

    mask: Mask
    alive: Any
    points: dict[str, TrainState]
    unscored: Sequence[Unscored | None]


class Parents(NamedTuple):
    """The inputs from which a replicate's arms are built; a population's leaves are stacked."""

    mask: Mask
    alive: jax.Array
    end: TrainState
    scored: Params
    rewound: TrainState
    prune_key: Key
    control_keys: dict[str, Key]


class InitialStates:
    """Builds the initial members of each level for a population of experiments.

    Args:
      experiments: the experiments, which share trainer and data.
      programs: the programs of their trainer.

    Attributes:
      like: the shapes of an experiment's dense members, for reading trees from nodes.
    """

    def __init__(self, experiments: Sequence[Experiment], programs: Programs):
        self._experiments, self._programs = experiments, programs
        task, seeds, *_ = experiments[0]
        example = jax.tree.map(lambda a: a[:1], task.data.train.x)

        def dense(init_key: Key, data_key: Key, replicate: Any, hyper: Mapping[str, Any]) -> Member:
            return init_member(task.trainer, init_key, data_key, hyper, example, replicate)

        self._dense = jax.jit(
            jax.vmap(dense, in_axes=(0, 0, 0, None)), compiler_options=quick_to_compile()
        )
        keys = replicate_keys(seeds, "init")
        self.like = jax.eval_shape(self._dense, keys, keys, _replicates(seeds), _hyper(task))

    def dense(self, i: int = 0, init: str = "init", data_level: int = 0, level: int = 0) -> Member:
        """An experiment's dense members at step 0, one per replicate."""
        task, seeds, *_ = self._experiments[i]
        init_keys = replicate_keys(seeds, init, level)
        data_keys = replicate_keys(seeds, "data", data_level)
        members: Member = self._dense(init_keys, data_keys, _replicates(seeds), _hyper(task))
        return members

    def population(
        self, i: int, level: int, trunk: Tickets | None, parents: Tickets | None
    ) -> tuple[Member, list[Unscored | None]]:
        """The initial members of an experiment's level, in the order of `spec.labels`.

        Also returns, for each member, whether the scores of its mask were invalid. Such a member is
        not alive and has the mask of its parent.
        """
        experiment = self._experiments[i]
        seeds, ladder = experiment.seeds, experiment.ladder
        data_level = level if ladder.rewind.data == "fresh" else 0
        dense = self.dense(i, data_level=data_level)
        if trunk is None or parents is None:
            return dense, [None] * seeds.replicates
        names = controls_at(ladder, level)
        offsets = {
            name: np.full(seeds.replicates, value, np.int32)
            for name, value in cursor_offsets(ladder.rewind, ladder.stop, level).items()
        }
        args = (
            ladder.batches,
            jax.tree.map(np.int32, _count_at(ladder, level)),
            Parents(
                mask=parents.mask,
                alive=parents.alive,
                end=parents.points["end"],
                scored=parents.points.get("scored", parents.points["end"]).params,
                rewound=trunk.points["rewound"],
                prune_key=replicate_keys(seeds, "prune", level),
                control_keys={
                    name: replicate_keys(seeds, "control", level, name) for name in names
                },
            ),
            dense._replace(hyper={**dense.hyper, **offsets}),
            self.dense(i, "redraw", data_level, level),
        )
        trainer = self._programs.trainer_of(ladder.methods.get(level))
        kept, made = ladder.counts[level - 1] is None, experiment.identity.arms_at(level)
        # Experiments that build tickets and controls in the same way share the program.
        key = content_key(
            [seeds.replicates, kept, made[TICKET], [[name, made[name]] for name in names]]
        )
        program = self._programs.once(
            key, lambda *args: _all_arms(trainer, ladder, kept, names, *args), args
        )
        members, info = program(*args)
        own = _unscored(ladder, level, parents, to_host(info))
        return members, own * (1 + len(names))


def _count_at(ladder: Ladder, level: int) -> Count:
    """The count of a level; the last earlier one for a level that keeps its mask."""
    return [count for count in ladder.counts[:level] if count is not None][-1]


def _hyper(task: Task) -> dict[str, np.float32]:
    return {name: np.float32(value) for name, value in task.hyper.items()}


def _replicates(seeds: Seeds) -> np.ndarray:
    return np.arange(seeds.replicates, dtype=np.int32)


def replicate_keys(seeds: Seeds, purpose: str, level: int = 0, *labels: str) -> Key:
    """One key per replicate, stacked; with a shared data order, one key for that purpose.

    >>> seeds = Seeds(jax.random.key(0), 3, shared_order=True)
    >>> [len({*map(str, replicate_keys(seeds, purpose))}) for purpose in ("data", "init")]
    [1, 3]
    """
    alike = purpose == "data" and seeds.shared_order
    of = [0 if alike else replicate for replicate in range(seeds.replicates)]
    return derive_all(seeds.root, of, purpose, level, *labels)


def arms(
    trainer: Trainer,
    ladder: Ladder,
    kept: bool,
    names: Sequence[str],
    batches: Any,
    count: Count,
    parents: Parents,
    dense: Member,
    redrawn: Member,
) -> tuple[list[Member], Info]:
    """The initial ticket and controls of a replicate, in this order.

    If the scores are invalid, none of them is alive. Also returns the info of `Pruner.with_info`.

    Args:
      trainer: the trainer of the level.
      ladder: the levels.
      kept: whether the level keeps the previous mask.
      names: the controls.
      batches: the batches of the criterion.
      count: the count of the level.
      parents: the inputs of the ticket.
      dense: the replicate's dense network at step 0, with this level's keys and hyperparameters.
      redrawn: a newly initialised network, for controls.
    """
    mask, point, ticket, info = ticket_arm(trainer, ladder, kept, batches, count, parents, dense)
    members = [ticket]
    for name in names:
        args = (mask, point, ticket, redrawn, parents.control_keys[name])
        members.append(control_arm(trainer, ladder, name, *args))
    return members, info


def ticket_arm(
    trainer: Trainer,
    ladder: Ladder,
    kept: bool,
    batches: Any,
    count: Count,
    parents: Parents,
    dense: Member,
) -> tuple[Mask, TrainState, Member, Info]:
    """The ticket of a replicate: mask, unmasked initial state, member, and the pruner's info.

    With a method that starts dense, the mask is that of the parent. Arguments as in `arms`.
    """
    rewound = parents.rewound
    if kept or (trainer.method is not None and trainer.method.starts_dense):
        mask, info = parents.mask, Info()
    else:
        # Members that are not alive have NaN weights; they must not give NaN scores.
        scored = trees.where(parents.alive, parents.scored, rewound.params)
        mask, info = ladder.pruner.with_info(
            scored,
            parents.mask,
            count,
            prunable=ladder.prunable,
            layouts=ladder.layouts,
            key=parents.prune_key,
            batches=batches,
            initial=rewound.params,
        )
    point = start_point(ladder.rewind, rewound, parents.end, _point(dense))
    if ladder.rewind.what != "weights":
        filled = fill_pruned(point.params, parents.mask, rewound.params)
        point = point._replace(params=filled)
    if ladder.reconstruct is not None:
        fitted, mask, flags = _reconstructed(trainer, ladder, mask, batches, parents)
        info = {**info, **flags}
        if ladder.reconstruct.start == "reconstructed":
            point = point._replace(params=fill_pruned(fitted, mask, rewound.params))
    alive = parents.alive & ~is_bad(info) if info else parents.alive
    base = dense._replace(alive=alive, count=count if trainer.method else ())
    return mask, point, _member(trainer, base, mask, point), info


def _reconstructed(
    trainer: Trainer, ladder: Ladder, mask: Mask, batches: Any, parents: Parents
) -> tuple[Params, Mask, Info]:
    """The trained weights of the parent, fitted to a mask, the mask, and the flags."""

    def forward(params: Params, batch: tuple[Any, Any]) -> Any:
        state, x = batch
        return trainer.model.apply(params, state, x, train=False)[0]

    assert ladder.reconstruct is not None
    end = parents.end
    # Members that are not alive have NaN weights.
    params = trees.where(parents.alive, end.params, parents.rewound.params)
    inputs = [(end.state, batch[0]) for batch in batches]
    return ladder.reconstruct(forward, params, mask, parents.mask, inputs, ladder.prunable)


def control_arm(
    trainer: Trainer,
    ladder: Ladder,
    name: str,
    mask: Mask,
    point: TrainState,
    ticket: Member,
    redrawn: Member,
    key: Key,
) -> Member:
    """A control of a replicate.

    Args:
      trainer: the trainer of the level.
      ladder: the levels.
      name: the control.
      mask: the ticket's mask.
      point: the ticket's unmasked initial state.
      ticket: the ticket.
      redrawn: a newly initialised network.
      key: the control's key.

    Raises:
      TypeError: the control does not return a mask and a `TrainState`.
    """
    options: dict[str, Any] = {"prunable": ladder.prunable, "layouts": ladder.layouts}
    made: Any = ladder.controls[name](mask, point, _point(redrawn), key=key, **options)
    pair = made if isinstance(made, tuple | list) and len(made) == 2 else None
    if pair is None or not isinstance(pair[1], TrainState):
        kinds = ", ".join(type(part).__name__ for part in pair or [made])
        raise TypeError(
            f"`controls` includes {name!r}, which returns {f'({kinds})' if pair else kinds}; a "
            "control must return (mask, TrainState), such as `mask, dense`."
        )
    own, start = pair
    init_key = ticket.init_key if start is point else redrawn.init_key
    return _member(trainer, ticket._replace(init_key=init_key), own, start)


def _unscored(ladder: Ladder, level: int, parents: Tickets, info: Info) -> list[Unscored | None]:
    """For each replicate, why the scores of its ticket or of an ancestor are invalid."""
    if not info:
        return list(parents.unscored)
    found: list[Unscored | None] = []
    for replicate, inherited in enumerate(parents.unscored):
        mine = trees.index(info, replicate)
        count = ladder.counts[level - 1]
        leaves = names(mine, count, ladder.prunable) if parents.alive[replicate] else []
        criterion = ladder.pruner.criterion
        words = sentence(criterion, leaves, reason(mine))
        if ladder.reconstruct is not None and parents.alive[replicate] and not leaves:
            why = ladder.reconstruct.reasons(mine, trees.names(ladder.prunable))
            criterion, leaves = ladder.reconstruct.name, sorted(why)
            words = "; ".join(f"`reconstruct` cannot fit '{leaf}': {why[leaf]}" for leaf in leaves)
            words += "; give more calibration examples, or a method with more `damping`."
        found.append(Unscored(criterion, leaves, words) if leaves else inherited)
    return found


def _all_arms(
    trainer: Trainer, ladder: Ladder, kept: bool, names: Sequence[str], *args: Any
) -> tuple[Member, Info]:
    """`arms` of all replicates, concatenated by arm; the info is stacked by replicate."""
    members, info = jax.vmap(
        lambda *a: arms(trainer, ladder, kept, names, *a), in_axes=(None, None, 0, 0, 0)
    )(*args)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *members), info


def _member(trainer: Trainer, base: Member, mask: Mask, point: TrainState) -> Member:
    """`base` with the state `point`, with parameters and optimizer slots masked."""
    member = base._replace(mask=mask, params=apply_mask(mask, point.params), state=point.state)
    optimizer = optimizer_of(trainer, member)
    if trainer.method is not None:  # its state is always initialised anew
        return member._replace(opt_state=optimizer.init(member.params))
    return member._replace(opt_state=mask_slots(optimizer, point.opt_state, mask))


def _point(member: Member) -> TrainState:
    return TrainState(member.params, member.state, member.opt_state)
