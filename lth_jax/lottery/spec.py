"""What a ladder is: what to train with, what to do, and who its members are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lth_jax.keys import check_key
from lth_jax.layouts import Layouts
from lth_jax.lottery.controls import Control
from lth_jax.lottery.rewind import Rewind, check_rewind
from lth_jax.pruning.prune import Pruner
from lth_jax.training.segment import Trainer
from lth_jax.types import DENSE, TICKET, Batch, Count, Key, Prunable


class Data(NamedTuple):
    """The three parts of a data set, resident on the device."""

    train: Batch
    validation: Batch
    test: Batch


class Label(NamedTuple):
    """Who a member is: its arm and its replicate."""

    arm: str
    replicate: int


class Lab(NamedTuple):
    """What an experiment trains with.

    Attributes:
      trainer: network, optimizer, loss, data order: the static part.
      data: the three splits on the device.
      root: the experiment's key: typed, of any implementation.
      replicates: how many independent seeds.
      hyper: scalars shared by all members; must hold `learning_rate`.
      shared_order: whether all replicates have one data key, that is see the same batches, changed
        in the same ways; else each has its own.
    """

    trainer: Trainer
    data: Data
    root: Key
    replicates: int
    hyper: dict[str, float]
    shared_order: bool = False


class Ladder(NamedTuple):
    """What is done with it.

    Attributes:
      counts: how many weights each level from 1 on keeps, as its scope counts them (int32); empty
        for dense networks alone.
      pruner: from `lth_jax.prune`.
      prunable: which leaves may be pruned.
      rewind: what is set back between levels.
      controls: the arms trained beside each ticket, by name (`controls.named`).
      stop: the steps of one training.
      score_step: the step at which the criterion sees the parameters; at most `stop`.
      control_levels: the levels at which controls are trained; None for all.
      batches: what a criterion that needs data gets.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), for granularities, scopes and
        controls that need it.
    """

    counts: Sequence[Count]
    pruner: Pruner
    prunable: Prunable
    rewind: Rewind
    controls: Mapping[str, Control]
    stop: int
    score_step: int
    control_levels: frozenset[int] | None = None
    batches: Any = None
    layouts: Layouts | None = None


def check_ladder(lab: Lab, ladder: Ladder) -> None:
    """Raises unless the ladder can be climbed, before anything is trained.

    Raises:
      TypeError: if `lab.root` is not a typed key.
      ValueError: if anything else is wrong.
    """
    check_key(lab.root, "root")
    if lab.replicates < 1:
        raise ValueError(f"`replicates` is {lab.replicates}; at least 1 is needed.")
    if ladder.stop < 1:
        raise ValueError(f"`steps` is {ladder.stop}; it must be at least 1.")
    check_rewind(ladder.rewind, ladder.stop)
    if not ladder.rewind.step <= ladder.score_step <= ladder.stop:
        raise ValueError(
            f"`score_step` is {ladder.score_step}; it must lie between the rewind step, "
            f"{ladder.rewind.step}, and the last step, {ladder.stop}."
        )


def level_sizes(lab: Lab, ladder: Ladder) -> list[int]:
    """How many members each level trains."""
    return [len(labels(lab, ladder, level)) for level in range(len(ladder.counts) + 1)]


def labels(lab: Lab, ladder: Ladder, level: int) -> list[Label]:
    """The members of a level: arm by arm, the tickets first."""
    arms = [DENSE] if level == 0 else [TICKET, *controls_at(ladder, level)]
    return [Label(arm, replicate) for arm in arms for replicate in range(lab.replicates)]


def controls_at(ladder: Ladder, level: int) -> tuple[str, ...]:
    """The controls that are trained at a level."""
    if level == 0 or (ladder.control_levels is not None and level not in ladder.control_levels):
        return ()
    return tuple(ladder.controls)
