"""Alternating dense and sparse phases (AC/DC)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.layouts import Layouts
from lth_jax.pruning.criteria import Criterion, magnitude
from lth_jax.pruning.masks import ones_like
from lth_jax.pruning.methods._parts import events_in, on_subnetwork
from lth_jax.pruning.methods.method import METHODS, Inputs, Method
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import Scope, globally
from lth_jax.pruning.scores import is_bad
from lth_jax.pruning.transforms.subnetwork import Revision, owning
from lth_jax.types import Count, Mask, Params, Prunable


class Phases(NamedTuple):
    """Events at the starts of phases, as `transforms.Events`.

    Attributes:
      sparse: the updates at which sparse phases start.
      dense: the updates at which dense phases start, without the first phase.
    """

    sparse: tuple[int, ...]
    dense: tuple[int, ...]

    def at(self, step: jax.Array) -> jax.Array:
        """Whether a phase starts at this step (boolean scalar)."""
        return jnp.any(step == jnp.array(self.sparse + self.dense, jnp.int32))

    def starts_sparse(self, step: jax.Array) -> jax.Array:
        """Whether a sparse phase starts at this step (boolean scalar)."""
        return jnp.any(step == jnp.array(self.sparse, jnp.int32))

    def check(self) -> None:
        """Does nothing: `phases` checks its arguments."""


def phases(
    steps: int, warmup: float, length: float, last_dense: float, last_sparse: float
) -> Phases:
    """A dense warm-up, alternating sparse and dense phases, a last dense and a last sparse phase.

    Args:
      steps: updates of the training.
      warmup: length of the first dense phase, as a fraction of the training.
      length: length of each phase in the middle; the first and the last of these are sparse.
      last_dense: length of the last dense phase.
      last_sparse: length of the last sparse phase.

    Raises:
      ValueError: a fraction is not above 0, or they leave no time for a phase between.

    >>> phases(100, 0.1, 0.1, 0.2, 0.2)
    Phases(sparse=(10, 30, 50, 80), dense=(20, 40, 60))
    """
    events_in(steps, None)  # checks `steps`
    between = (1 - warmup - last_dense - last_sparse) / length if length > 0 else 0
    if min(warmup, length, last_dense, last_sparse) <= 0 or round(between) < 1:
        raise ValueError(
            "`warmup`, `length`, `last_dense` and `last_sparse` must be above 0 and leave time for "
            f"a sparse phase between, but are {warmup}, {length}, {last_dense}, {last_sparse}."
        )
    number = (round(between) - 1) // 2 * 2 + 1  # it begins and ends with a sparse phase
    starts = [int((warmup + i * length) * steps + 0.5) for i in range(number)]
    end = min(int((1 - last_sparse) * steps + 0.5), steps - 1)
    sparse = {*starts[::2], end}
    dense = {*starts[1::2], int((1 - last_dense - last_sparse) * steps + 0.5)}
    return Phases(
        tuple(sorted(s for s in sparse if s <= end)),
        tuple(sorted(s for s in dense - sparse if s < end)),
    )


def alternating(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int,
    criterion: Criterion | None = None,
    warmup: float = 0.1,
    length: float = 0.05,
    last_dense: float = 0.1,
    last_sparse: float = 0.15,
) -> Method:
    """AC/DC (Peste et al., 2021): alternating sparse and dense phases, the last one sparse.

    At the start of each sparse phase the weights are pruned to `count` by magnitude. In a dense
    phase all weights are trained; regrown weights start from 0 with newly initialised optimizer
    slots. The default phases are those of the authors for ImageNet: 10, 5, 5, …, 10 and 15 of 100
    epochs.

    Args:
      prunable: static tree of Python booleans.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), as scope and criterion need it.
      scope: which weights compete; `globally()` by default (the authors').
      steps: updates of the training.
      criterion: one that needs neither data nor a key; `magnitude()` by default.
      warmup: length of the first dense phase, as a fraction of the training.
      length: length of each phase in the middle, as a fraction of the training.
      last_dense: length of the last dense phase, as a fraction of the training.
      last_sparse: length of the last sparse phase, as a fraction of the training.

    Raises:
      ValueError: `steps` is not an integer of at least 1, a fraction is not above 0, or they leave
        no time for a sparse phase between; from `update`, `prunable` does not fit the parameters.
      TypeError: `criterion` or `scope` has the wrong type.

    >>> method = alternating(prunable={"w": True}, steps=1000)
    >>> method.name, method.starts_dense
    ('alternating', True)
    """
    times: Any = phases(steps, warmup, length, last_dense, last_sparse)
    pruner = prune(criterion or magnitude(), scope or globally())

    def revise(
        mask: Mask, step: Any, key: Any, grads: Params, params: Params, count: Count
    ) -> Revision:
        sparse, info = pruner.with_info(params, mask, count, prunable=prunable, layouts=layouts)
        starts = times.starts_sparse(step)
        return trees.where(starts, sparse, ones_like(mask)), starts & is_bad(info)

    def build(inner: Any, inputs: Inputs) -> Any:
        return owning(inner, lambda params: inputs.mask, times, revise, None, inputs.count)

    return on_subnetwork("alternating", build, starts_dense=True)


METHODS.register("alternating", alternating)
