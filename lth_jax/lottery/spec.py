"""The description of an experiment: task, seeds, ladder and identity."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import text
from lth_jax.keys import check_key
from lth_jax.layouts import Layouts
from lth_jax.lottery.controls import Control
from lth_jax.lottery.rewind import Rewind, check_rewind
from lth_jax.population.task import Task
from lth_jax.pruning.methods import Method
from lth_jax.pruning.prune import Pruner
from lth_jax.store import content_key
from lth_jax.types import DENSE, TICKET, Count, Info, Key, Mask, Params, Prunable


class Reconstruct(Protocol):
    """Chooses or fits a ticket on calibration inputs: `lth.reconstruct.Reconstruction`."""

    @property
    def start(self) -> str:
        """`"reconstructed"` if the ticket starts from the fitted weights, else it is rewound."""

    @property
    def chooses(self) -> bool:
        """Whether it chooses which weights of a layer stay."""

    @property
    def name(self) -> str:
        """The name in reports."""

    def check(self) -> None:
        """Raises unless the options are valid."""

    def __call__(
        self,
        f: Callable[[Params, Any], Any],
        params: Params,
        mask: Mask,
        live: Mask,
        batches: Sequence[Any],
        prunable: Prunable,
    ) -> tuple[Params, Mask, Info]:
        """Fitted parameters, mask and flags, from trained parameters and the pruner's mask."""

    def reasons(self, info: Info, names: Sequence[str]) -> dict[str, str]:
        """Leaf -> why it cannot be fitted, from the flags of a call."""


class Label(NamedTuple):
    """The label of a member within a level.

    Attributes:
      arm: `"ticket"`, `"dense"`, or the name of a control.
      replicate: the index of its seed.
    """

    arm: str
    replicate: int


@text.with_short_repr
class Seeds(NamedTuple):
    """The independent seeds of an experiment.

    Attributes:
      root: the experiment's key: typed, of any implementation.
      replicates: the number of independent seeds.
      shared_order: whether all replicates share one data key, and so batches and augmentation.
    """

    root: Key
    replicates: int
    shared_order: bool = False


@text.with_short_repr
class Ladder(NamedTuple):
    """The levels of train, prune and rewind of an experiment.

    Attributes:
      counts: the count of each level from 1 on (int32, from the scope); empty for dense networks
        alone. None keeps the previous mask.
      pruner: from `lth_jax.prune`.
      prunable: which leaves may be pruned.
      rewind: what is rewound between levels.
      controls: the controls of each ticket by name (`controls.named`).
      stop: the steps of one training.
      score_step: the step whose parameters the criterion scores; at most `stop`.
      control_levels: the levels at which controls are trained; None for all.
      batches: the batches of a criterion that needs data.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), for granularities, scopes and
        controls that need it.
      methods: level -> method; levels without one train with fixed masks.
      reconstruct: fits the trained weights to each new mask, on `batches`; None for none.
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
    reconstruct: Reconstruct | None = None


@text.with_short_repr
class Identity(NamedTuple):
    """Everything that determines an experiment's numbers, except plan and ladder; JSON-like.

    Attributes:
      training: the fingerprint of the programs that initialise, train and evaluate members.
      arms: the fingerprints of the programs that build tickets and controls, by arm.
      methods: level -> the fingerprints of its training and arms.
      batches: the fingerprint of the criterion's batches.
      data: the fingerprint of the data.
      constants: the fingerprint of the trainer's constants.
      root: implementation and bits of the experiment's key.
      numbers: the members' scalars, as the hexadecimal bytes of float32.
      shared_order: as in `Seeds`.
      environment: versions, kind of device, numeric flags and host code.
    """

    training: str
    arms: dict[str, str]
    methods: dict[str, Any]
    batches: str
    data: str
    constants: str
    root: list[str]
    numbers: dict[str, str]
    shared_order: bool
    environment: dict[str, Any]

    @property
    def trunk(self) -> str:
        """The SHA-256 of what level 0 depends on: all but arms, methods and batches."""
        return content_key(self._replace(arms={}, methods={}, batches=""))

    @property
    def methods_training(self) -> dict[str, str]:
        """Level -> the fingerprint of its training with a method."""
        return {i: own["training"] for i, own in self.methods.items() if "training" in own}

    def arms_at(self, level: int) -> dict[str, str]:
        """The fingerprints of the programs that build a level's members, by arm."""
        own = self.methods.get(str(level))
        return dict(own["arms"]) if own else self.arms


@text.with_short_repr
class Experiment(NamedTuple):
    """One experiment of a population, made by `make_experiment`.

    Attributes:
      task: its task; experiments of one population have equal trainers, constants and data.
      seeds: its independent seeds.
      ladder: its levels.
      identity: everything else that determines its numbers.
    """

    task: Task
    seeds: Seeds
    ladder: Ladder
    identity: Identity


def check_ladder(seeds: Seeds, ladder: Ladder) -> None:
    """Checks that a ladder can run with these seeds.

    Args:
      seeds: the independent seeds.
      ladder: the levels.

    Raises:
      TypeError: `seeds.root` is not a typed key; or, with `ladder.reconstruct`, its method is not a
        `LayerMethod`, or `batches` are not pairs of inputs and targets.
      ValueError: another field is invalid.

    >>> import flax.linen as nn, optax
    >>> from lth_jax.lottery import imp, make_ladder
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> check_ladder(Seeds(jax.random.key(0), 0), make_ladder(task, imp()))
    Traceback (most recent call last):
    ValueError: `replicates` is 0; at least 1 is needed.
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
    if ladder.reconstruct is not None:
        _check_reconstruct(ladder)
    if ladder.methods and ladder.score_step != ladder.stop:
        raise ValueError(
            f"`score_step` is {ladder.score_step}; with `methods` it must be the last step, "
            f"{ladder.stop}."
        )


def _check_reconstruct(ladder: Ladder) -> None:
    assert ladder.reconstruct is not None
    ladder.reconstruct.check()
    if ladder.batches is None:
        raise ValueError("`reconstruct` needs calibration examples, but `batches` is None.")
    for batch in ladder.batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(
                "`batches` must hold pairs of inputs and targets for `reconstruct`, but holds a "
                f"{type(batch).__name__}; inputs alone are `[(x, None) for x in batches]`."
            )
        floats = [x for x in jax.tree.leaves(batch[0]) if jnp.issubdtype(x.dtype, jnp.inexact)]
        if not all(np.isfinite(x).all() for x in floats):
            raise ValueError(
                "`batches` hold inputs that are NaN or infinite, to which no weights can be fitted."
            )
    if ladder.methods or None in ladder.counts:
        raise ValueError(
            "`reconstruct` fits weights to the mask that the criterion chooses; levels with a "
            "sparse training method, or that keep the previous mask, choose none."
        )


def level_sizes(seeds: Seeds, ladder: Ladder) -> list[int]:
    """The number of members of each level.

    Level 0 has a dense network per replicate. Each further level has a ticket per replicate, and
    one network per replicate for each of its controls.

    Args:
      seeds: the independent seeds.
      ladder: the levels.

    Returns:
      One integer per level, that of level 0 first.

    >>> import flax.linen as nn, optax
    >>> from lth_jax.lottery import imp, make_ladder
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> ladder = make_ladder(task, imp(levels=2), ["reinit"], control_levels=[2])
    >>> level_sizes(Seeds(jax.random.key(0), 3), ladder)
    [3, 3, 6]
    """
    return [len(labels(seeds, ladder, level)) for level in range(len(ladder.counts) + 1)]


def labels(seeds: Seeds, ladder: Ladder, level: int) -> list[Label]:
    """The labels of a level's members, by arm; tickets first."""
    arms = [DENSE] if level == 0 else [TICKET, *controls_at(ladder, level)]
    return [Label(arm, replicate) for arm in arms for replicate in range(seeds.replicates)]


def controls_at(ladder: Ladder, level: int) -> tuple[str, ...]:
    """The controls that are trained at a level."""
    if level == 0 or (ladder.control_levels is not None and level not in ladder.control_levels):
        return ()
    return tuple(ladder.controls)
