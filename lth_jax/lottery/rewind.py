"""What a ticket starts from: which weights, and what goes with them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lth_jax.types import Mask, Params, TrainState

WEIGHTS = ("weights", "learning_rate", "nothing")
SOURCES = ("rewind", "keep", "fresh")


class Rewind(NamedTuple):
    """What is set back before a level is trained, and to when (Renda et al., 2020).

    Attributes:
      what: `"weights"`: weights and learning rate return to `step` (lottery ticket rewinding,
        Frankle and Carbin 2019; Frankle et al. 2020). `"learning_rate"`: the weights stay as
        trained, the schedule returns to `step`. `"nothing"`: the weights stay and the learning
        rate stays at its last value (fine-tuning).
      step: the rewind point; every level trains from it to the end of the schedule.
      optimizer: the optimizer's state: that of the rewind point (`"rewind"`), as the parent level
        left it (`"keep"`), or `"fresh"`.
      state: the model's state (BatchNorm statistics): likewise.
      data: the data cursor. `"fresh"`: an order of this level's own, from `step`. `"rewind"`: the
        order of level 0, from `step`: the level sees the batches its parent saw. `"keep"`: the
        order of level 0, continued after the parent's last batch.
    """

    what: str = "weights"
    step: int = 0
    optimizer: str = "fresh"
    state: str = "rewind"
    data: str = "fresh"


def check_rewind(rewind: Rewind, stop: int) -> None:
    """Raises `ValueError` unless the rewind can be carried out in trainings of `stop` steps."""
    if rewind.what not in WEIGHTS:
        raise ValueError(f"`rewind.what` is {rewind.what!r}; it must be one of {WEIGHTS}.")
    for name in ("optimizer", "state", "data"):
        value = getattr(rewind, name)
        if value not in SOURCES:
            raise ValueError(f"`rewind.{name}` is {value!r}; it must be one of {SOURCES}.")
    if not 0 <= rewind.step < stop:
        raise ValueError(
            f"`rewind.step` is {rewind.step}; it must be at least 0 and below the {stop} steps of "
            "a training."
        )


def start_point(
    rewind: Rewind, rewound: TrainState, parent: TrainState, fresh: TrainState
) -> TrainState:
    """The point a level starts from, before any mask.

    Args:
      rewind: what to set back.
      rewound: level 0 at the rewind step, dense.
      parent: the ticket of the level before, at its end.
      fresh: the state and optimizer state of a new network.
    """
    sources = {"rewind": rewound, "keep": parent, "fresh": fresh}
    return TrainState(
        params=rewound.params if rewind.what == "weights" else parent.params,
        state=sources[rewind.state].state,
        opt_state=sources[rewind.optimizer].opt_state,
    )


def fill_pruned(params: Params, mask: Mask, reserve: Params) -> Params:
    """`params` where the mask keeps them, `reserve` elsewhere: values for weights once pruned.

    A control that moves the mask needs a weight at every place; where the parent has none, the
    rewind point's is used.
    """
    return jax.tree.map(jnp.where, mask, params, reserve)


def cursor_offsets(rewind: Rewind, stop: int, level: int) -> dict[str, int]:
    """How far a level's schedule and data cursor run ahead of its step counter.

    >>> cursor_offsets(Rewind("nothing", step=10, data="keep"), stop=100, level=2)
    {'schedule_offset': 90, 'data_offset': 180}
    """
    length = stop - rewind.step
    return {
        "schedule_offset": length if level and rewind.what == "nothing" else 0,
        "data_offset": length * level if rewind.data == "keep" else 0,
    }
