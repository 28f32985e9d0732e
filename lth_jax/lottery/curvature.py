"""The curvature of a population's training loss at the parameters of its members."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax import trees
from lth_jax.coding.stored import Named
from lth_jax.landscape import Operator, extremes, hessian, relative_sharpness
from lth_jax.lottery.starts import Start
from lth_jax.population.segment import Member, Trainer
from lth_jax.population.task import Task
from lth_jax.types import Batch, Key, Mask, Params

Variables = dict[str, Any]
"""The variables of a network: its `"params"` and its `"state"`."""

Loss = Callable[[Variables, Batch], jax.Array]
"""`(variables, batch) -> mean loss over the batch`."""

BLOCK = 500
"""Default number of examples that are linearised together."""


def training_loss(trainer: Trainer, key: Key | None) -> Loss:
    """The mean training loss of a batch, as a function of parameters and state.

    Args:
      trainer: the network and its loss.
      key: selects the mode. A key: training mode, with BatchNorm by batch statistics and dropout
        drawn from this key, the same for every batch. None: test mode, with BatchNorm by running
        statistics and no dropout.

    Returns:
      One function for all networks of the trainer, so that their operators share a program.
    """

    def loss(place: Variables, batch: Batch) -> jax.Array:
        out, _ = trainer.model.apply(
            place["params"], place["state"], batch.x, key=key, train=key is not None
        )
        return jnp.mean(trainer.loss(out, batch.y))

    return loss


def hessian_at(
    loss: Loss, params: Params, state: Any, mask: Mask, batches: Sequence[Batch]
) -> Operator:
    """The Hessian with respect to the parameters, restricted to the support of a mask.

    Args:
      loss: from `training_loss`.
      params: the point.
      state: the model's state there.
      mask: boolean tree like `params`.
      batches: as in `landscape.hessian`.

    Raises:
      TypeError: as in `landscape.hessian`.
      ValueError: as in `landscape.hessian`.
    """
    everything = jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), state)
    place, support = {"params": params, "state": state}, {"params": mask, "state": everything}
    return hessian(loss, place, batches, mask=support, leaves="params*")


def relative_sharpness_at(loss: Loss, member: Member, batches: Sequence[Batch], key: Key) -> float:
    """`λmax · η / 2` at a member's parameters, with `η` its peak learning rate.

    `λmax` is accurate to 1 %. Gradient descent is at the edge of stability where the result is 1
    (Cohen et al., 2021). Call it in `on_segment` of `train_population` to track it; members of one
    trainer share its programs.

    Args:
      loss: from `training_loss`.
      member: one member, not a population.
      batches: as in `landscape.hessian`.
      key: key of Lanczos's start vector.

    Returns:
      The number; NaN if the member has diverged.

    Raises:
      NotFiniteError: the loss or its curvature is not finite at the parameters of a live member.
    """
    if not member.alive:
        return float("nan")
    operator = hessian_at(loss, member.params, member.state, member.mask, batches)
    ends = extremes(operator, key, smallest=0, tolerance=1e-2, exact_below=0)
    return relative_sharpness(ends, float(member.hyper["learning_rate"]))


def first_blocks(data: Batch, examples: int, *, block: int = BLOCK) -> list[Batch]:
    """The first `examples` of a data set (or all) in blocks; the last may be smaller.

    >>> [len(b.y) for b in first_blocks(Batch(jnp.ones((9, 2)), jnp.ones(9)), 7, block=4)]
    [4, 3]
    """
    size = min(examples, len(jax.tree.leaves(data)[0]))
    return [
        trees.index(data, slice(first, min(first + block, size))) for first in range(0, size, block)
    ]


def mean_over(loss: Loss, batches: Sequence[Batch]) -> Callable[[Params, Any], jax.Array]:
    """`(params, state) -> loss` over all examples, each batch weighted by its size.

    >>> total = mean_over(lambda place, b: b.x.mean(), [Batch(jnp.ones(3), None)] * 2)
    >>> total({}, {}).item()
    1.0
    """
    sizes = [len(jax.tree.leaves(batch)[0]) for batch in batches]

    def mean(params: Params, state: Any) -> jax.Array:
        place = {"params": params, "state": state}
        values = jnp.stack([loss(place, batch) for batch in batches])
        return jnp.asarray(sizes, values.dtype) @ values / sum(sizes)

    return mean


def stability_edges(
    task: Task, starts: Sequence[Start], points: Sequence[Named], key: Key, *, examples: int
) -> NDArray[np.float64]:
    """The largest stable step size of gradient descent, `2 / λmax`, of each network.

    λmax is that of the Hessian of the training loss on the network's mask, accurate to 1 %.

    Args:
      task: its network has no BatchNorm.
      starts: the networks' masks and replicates.
      points: the networks' masked parameters, leaves by name.
      key: key of Lanczos's start vector.
      examples: the number of training examples; the first ones of each network are used.

    Returns:
      float64 `[networks]`.
    """
    loss, like = training_loss(task.trainer, None), task.shapes[0]

    def edge(start: Start, point: Named) -> float:
        here, mask = (trees.from_named(dict(tree), like) for tree in (point, start.mask))
        seen = trees.index(task.data.train, task.own_rows(start.replicate))
        operator = hessian_at(loss, here, {}, mask, first_blocks(seen, examples))
        ends = extremes(operator, key, smallest=0, tolerance=1e-2, exact_below=0)
        return float(2 / ends.largest[0])

    return np.array([edge(*both) for both in zip(starts, points, strict=True)])
