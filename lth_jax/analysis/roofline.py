"""Lower bounds of the memory and time that training needs from an accelerator."""

from typing import Any, NamedTuple

import jax

from lth_jax.machine import in_units
from lth_jax.types import Model

HOURS = 8.0
"""The largest bound of a study, in hours: at a third of the peak speed it ends within a day."""


class Chip(NamedTuple):
    """An accelerator.

    Attributes:
      name: its name in messages.
      memory: bytes of memory.
      flops: float32 operations per second.
      bandwidth: bytes per second between its memory and its cores.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float


A100 = Chip("an A100 of 40 GB", 40 * 2**30, 19.5e12, 1.555e12)
"""NVIDIA A100, float32 without TF32 (data sheet of 2020)."""


class Needs(NamedTuple):
    """Lower bounds of the training of many networks.

    Attributes:
      member_steps: training steps of all networks.
      memory: bytes on the device.
      hours: hours on the accelerator.
    """

    member_steps: float
    memory: float
    hours: float

    def fit(self, chip: Chip) -> bool:
        """Whether an accelerator has the memory, and needs at most `HOURS`."""
        return self.memory <= chip.memory and self.hours <= HOURS

    def described(self, chip: Chip) -> str:
        """The bounds in words."""
        memory, verb = in_units(round(self.memory)), "fits" if self.fit(chip) else "does not fit"
        return (
            f"{self.member_steps:.2g} member-steps, at least {memory} and {self.hours:.2g} hours: "
            f"it {verb} {chip.name}."
        )


def step_seconds(network: Model, example: jax.ShapeDtypeStruct, slots: int, chip: Chip) -> float:
    """The least seconds of a training step of one member on an accelerator.

    A step takes at least the time of its operations, three times those of a forward pass, and at
    least the time to transfer parameters (read twice, written once), gradients and optimizer states
    to and from memory.

    Args:
      network: the network.
      example: shape and dtype of a batch of inputs.
      slots: bytes of optimizer state and mask.
      chip: the accelerator.

    >>> import flax.linen as nn
    >>> from lth_jax.models import from_linen
    >>> batch = jax.ShapeDtypeStruct((6, 784), "float32")
    >>> step_seconds(from_linen(nn.Dense(300)), batch, 0, A100) * A100.bandwidth  # by traffic
    4710000.0
    """
    params, state = jax.eval_shape(network.init, jax.random.key(0), example)
    forward = jax.jit(lambda p, s, x: network.apply(p, s, x, train=False)[0])
    cost: Any = forward.lower(params, state, example).cost_analysis()
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    moved = 5 * weights + 2 * max(slots, 0)
    return float(max(3 * cost["flops"] / chip.flops, moved / chip.bandwidth))
