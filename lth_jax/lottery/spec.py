"""What an experiment is: a task, its seeds, and what its ladder does."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lth_jax import text
from lth_jax.keys import check_key
from lth_jax.layouts import Layouts
from lth_jax.lottery.controls import Control
from lth_jax.lottery.rewind import Rewind, check_rewind
from lth_jax.population.task import Task
from lth_jax.pruning.methods import Method
from lth_jax.pruning.prune import Pruner
from lth_jax.store import content_key
from lth_jax.types import DENSE, TICKET, Count, Key, Prunable


class Label(NamedTuple):
    """A member's arm and replicate."""

    arm: str
    replicate: int


@text.with_short_repr
class Seeds(NamedTuple):
    """The independent seeds of an experiment.

    Attributes:
      root: the experiment's key: typed, of any implementation.
      replicates: the number of independent seeds.
      shared_order: whether all replicates have one data key, and so the same batches, changed in
        the same ways; else each has its own.
    """

    root: Key
    replicates: int
    shared_order: bool = False


@text.with_short_repr
class Ladder(NamedTuple):
    """What an experiment does: levels of train, prune and rewind.

    Attributes:
      counts: how many weights each level from 1 on keeps, as its scope counts them (int32); empty
        for dense networks alone. None keeps the mask of the level before.
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
      methods: level -> how its members' masks live in training; fixed where a level has none.
    """

    counts: Sequence[Count | None]
    pruner: Pruner
    prunable: Prunable
    rewind: Rewind
    controls: Mapping[str, Control]
    stop: int
    score_step: int
    control_levels: frozenset[int] | None = None
    batches: Any = None
    layouts: Layouts | None = None
    methods: Mapping[int, Method] = {}


@text.with_short_repr
class Identity(NamedTuple):
    """What decides an experiment's numbers, except its plan and its ladder; JSON-like.

    Attributes:
      training: the fingerprint of the programs that begin, train and evaluate members.
      arms: the fingerprints of the programs that make tickets and controls, by arm.
      methods: level -> the fingerprints of its method: of the training, and of the arms.
      data: the fingerprint of the data.
      constants: that of the trainer's constants.
      root: implementation and bits of the experiment's key.
      numbers: the members' scalars, as the hexadecimal bytes of float32.
      shared_order: as of `Seeds`.
      environment: versions, kind of device, numeric flags and host code.
    """

    training: str
    arms: dict[str, str]
    methods: dict[str, Any]
    data: str
    constants: str
    root: list[str]
    numbers: dict[str, str]
    shared_order: bool
    environment: dict[str, Any]

    @property
    def trunk(self) -> str:
        """The SHA-256 of all but arms and methods: what level 0 depends on."""
        return content_key(self._replace(arms={}, methods={}))

    @property
    def methods_training(self) -> dict[str, str]:
        """Level -> the fingerprint of the training by its method."""
        return {i: own["training"] for i, own in self.methods.items() if "training" in own}

    def arms_at(self, level: int) -> dict[str, str]:
        """The fingerprints of how a level's members are made, by arm."""
        own = self.methods.get(str(level))
        return dict(own["arms"]) if own else self.arms


@text.with_short_repr
class Experiment(NamedTuple):
    """One experiment of a population; `make_experiment` makes it.

    Attributes:
      task: what it trains; those of one population have equal trainers, constants and data.
      seeds: its independent seeds.
      ladder: what it does.
      identity: all else that decides its numbers.
    """

    task: Task
    seeds: Seeds
    ladder: Ladder
    identity: Identity


def check_ladder(seeds: Seeds, ladder: Ladder) -> None:
    """Raises unless the ladder can run, before anything is trained.

    Raises:
      TypeError: if `seeds.root` is not a typed key.
      ValueError: if anything else is wrong.
    """
    check_key(seeds.root, "root")
    if seeds.replicates < 1:
        raise ValueError(f"`replicates` is {seeds.replicates}; at least 1 is needed.")
    if ladder.stop < 1:
        raise ValueError(f"`steps` is {ladder.stop}; it must be at least 1.")
    check_rewind(ladder.rewind, ladder.stop)
    if not ladder.rewind.step <= ladder.score_step <= ladder.stop:
        raise ValueError(
            f"`score_step` is {ladder.score_step}; it must lie between the rewind step, "
            f"{ladder.rewind.step}, and the last step, {ladder.stop}."
        )
    absent = [level for level in ladder.methods if not 1 <= level <= len(ladder.counts)]
    if absent:
        raise ValueError(
            f"`methods` includes level {absent[0]}; the ladder has levels 1 to "
            f"{len(ladder.counts)}."
        )
    if ladder.methods and ladder.rewind.optimizer != "fresh":
        raise ValueError(
            f"`rewind.optimizer` is {ladder.rewind.optimizer!r}; with `methods`, whose optimizer "
            "states differ from level to level, it must be 'fresh'."
        )
    if ladder.methods and ladder.score_step != ladder.stop:
        raise ValueError(
            f"`score_step` is {ladder.score_step}; with `methods` it must be the last step, "
            f"{ladder.stop}."
        )


def level_sizes(seeds: Seeds, ladder: Ladder) -> list[int]:
    """The number of members of each level."""
    return [len(labels(seeds, ladder, level)) for level in range(len(ladder.counts) + 1)]


def labels(seeds: Seeds, ladder: Ladder, level: int) -> list[Label]:
    """The members of a level: arm by arm, the tickets first."""
    arms = [DENSE] if level == 0 else [TICKET, *controls_at(ladder, level)]
    return [Label(arm, replicate) for arm in arms for replicate in range(seeds.replicates)]


def controls_at(ladder: Ladder, level: int) -> tuple[str, ...]:
    """The controls that are trained at a level."""
    if level == 0 or (ladder.control_levels is not None and level not in ladder.control_levels):
        return ()
    return tuple(ladder.controls)
