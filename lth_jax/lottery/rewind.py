"""Rewinding: the weights, optimizer state and data order from which a level starts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lth_jax.legal import check_name
from lth_jax.types import Mask, Params, TrainState

WEIGHTS = ("weights", "learning_rate", "nothing")
SOURCES = ("rewind", "keep", "fresh")


class Rewind(NamedTuple):
    """What is rewound before a level is trained, and to which step (Renda et al., 2020).

    Attributes:
      what: `"weights"`: weights and learning rate return to `step` (lottery ticket rewinding,
        Frankle and Carbin 2019; Frankle et al. 2020). `"learning_rate"`: the trained weights are
        kept, and the schedule returns to `step`. `"nothing"`: the trained weights and the last
        learning rate are kept (fine-tuning).
      step: the rewind point; every level trains from it to the end of the schedule.
      optimizer: the optimizer's state: that at the rewind point (`"rewind"`), that at the end of
        the previous level (`"keep"`), or `"fresh"`.
      state: the model's state (BatchNorm statistics), with the same choices.
      data: the data order. `"fresh"`: a new order for each level, from `step`. `"rewind"`: the
        order of level 0, from `step`, so that all levels use the same batches. `"keep"`: the order
        of level 0, continued after the last batch of the previous level.
    """

    what: str = "weights"
    step: int = 0
    optimizer: str = "fresh"
    state: str = "rewind"
    data: str = "fresh"


def check_rewind(rewind: Rewind, stop: int) -> None:
    """Raises `ValueError` unless the rewind is valid for trainings of `stop` steps."""
    check_name("rewind.what", rewind.what, WEIGHTS)
    for name in ("optimizer", "state", "data"):
        check_name(f"rewind.{name}", getattr(rewind, name), SOURCES)
    if not 0 <= rewind.step < stop:
        raise ValueError(
            f"`rewind.step` is {rewind.step}; it must be at least 0 and below the {stop} steps of "
            "a training."
        )


def start_point(
    rewind: Rewind, rewound: TrainState, parent: TrainState, fresh: TrainState
) -> TrainState:
    """The unmasked state from which a level starts.

    Args:
      rewind: what to rewind.
      rewound: the dense state of level 0 at the rewind step.
      parent: the final state of the previous level's ticket.
      fresh: the state of a newly initialised network.
    """
    sources = {"rewind": rewound, "keep": parent, "fresh": fresh}
    return TrainState(
        params=rewound.params if rewind.what == "weights" else parent.params,
        state=sources[rewind.state].state,
        opt_state=sources[rewind.optimizer].opt_state,
    )


def fill_pruned(params: Params, mask: Mask, reserve: Params) -> Params:
    """`params` where kept, `reserve` elsewhere.

    A control that changes the mask needs a value for every weight; pruned ones get that of the
    rewind point.
    """
    return jax.tree.map(jnp.where, mask, params, reserve)


def cursor_offsets(rewind: Rewind, stop: int, level: int) -> dict[str, int]:
    """The offsets of a level's schedule and data order from its step counter.

    >>> cursor_offsets(Rewind("nothing", step=10, data="keep"), stop=100, level=2)
    {'schedule_offset': 90, 'data_offset': 180}
    """
    length = stop - rewind.step
    return {
        "schedule_offset": length if level and rewind.what == "nothing" else 0,
        "data_offset": length * level if rewind.data == "keep" else 0,
    }
