"""Instability analysis: the dependence of a trained network on the order of the data.

Children of one start are trained on different data orders. If the error on the line between two of
them is nowhere higher than at the ends, the start is stable to the noise of stochastic gradient
descent (Frankle, Dziugaite, Roy & Carbin, 2020, "Linear mode connectivity and the lottery ticket
hypothesis"). The children of all replicates train as one population.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax import keys, trees
from lth_jax.coding.stored import Named
from lth_jax.landscape import along_line, barrier, renew_state
from lth_jax.population.segment import Member, Trainer, evaluate
from lth_jax.population.task import Task
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.transforms import mask_slots, masked
from lth_jax.types import Batch, Info, Key, Mask, Params, Splits


def member_at(
    trainer: Trainer,
    hyper: Mapping[str, Any],
    params: Params,
    state: Any,
    mask: Mask,
    data_key: Key,
    replicate: Any = 0,
) -> Member:
    """A member with given parameters and mask and a newly initialised optimizer.

    Args:
      trainer: the static part.
      hyper: the member's scalars; must hold `learning_rate`.
      params: the parameters; the mask is applied.
      state: the model's state.
      mask: boolean tree like `params`.
      data_key: a typed key for data order, dropout and augmentation.
      replicate: the index of its seed.

    Raises:
      TypeError: if `data_key` is not a typed key.
    """
    data_key = keys.as_threefry(data_key, "data_key")
    params, optimizer = apply_mask(mask, params), masked(trainer.make_optimizer(hyper))
    offsets = {"schedule_offset": 0, "data_offset": 0, "replicate": replicate}
    scalars = {name: jnp.asarray(value, jnp.int32) for name, value in offsets.items()}
    return Member(
        params=params,
        state=state,
        opt_state=mask_slots(optimizer, optimizer.init(params), mask),
        mask=mask,
        init_key=data_key,  # not used: nothing is initialised
        data_key=data_key,
        hyper=scalars | {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()},
        alive=jnp.array(True),
    )


def between(
    trainer: Trainer,
    first: Member,
    second: Member,
    data: Splits,
    alphas: jax.Array,
    renewal: Batch | None = None,
) -> dict[str, Info]:
    """All metrics along the line between two members with the same mask.

    Args:
      trainer: the static part.
      first: the member at α = 0.
      second: the member at α = 1.
      data: evaluated on `train` and `test`.
      alphas: `[m]`, from 0 to 1.
      renewal: batches for recomputing the BatchNorm statistics at each point (Jordan et al., 2023),
        leaves `[batches, size, ...]`; enough that the initial statistics have no influence. If
        None, the first member's statistics are used everywhere.

    Returns:
      `{"train": {metric: float32[m]}, "test": …}`.
    """

    def at(params: Params) -> dict[str, Info]:
        state = first.state if renewal is None else _renewed(trainer, params, first, renewal)
        splits = {"train": data.train, "test": data.test}
        return {name: evaluate(trainer, params, state, part) for name, part in splits.items()}

    found: dict[str, Info] = along_line(at, first.params, second.params, alphas)
    return found


def _renewed(trainer: Trainer, params: Params, member: Member, renewal: Batch) -> Any:
    """The state after all batches, in one loop: unrolled, it would take long to compile."""
    stream = keys.stream(member.data_key, "line")

    def show(state: Any, at: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        i, batch = at
        key = jax.random.fold_in(stream, i)
        return renew_state(trainer.model.apply, params, state, [batch], key=key), None

    count = len(jax.tree.leaves(renewal)[0])
    return jax.lax.scan(show, member.state, (jnp.arange(count), renewal))[0]


def between_children(
    trainer: Trainer,
    members: Member,
    children: int,
    data: Splits,
    alphas: jax.Array,
    renewal: Batch | None = None,
) -> dict[str, Info]:
    """`between` for every pair of children of each start.

    `members` is a population in which the `children` of a start are adjacent; the other arguments
    are those of `between`.

    Returns:
      `{"train": {metric: float32[starts, pairs, m]}, "test": …}`, pairs in the order of
      `itertools.combinations`.

    Raises:
      ValueError: if `children` is below 2.
    """
    if children < 2:
        raise ValueError(f"`children` is {children}; a line needs at least 2.")
    first, second = jnp.array(list(itertools.combinations(range(children), 2))).T

    def of_start(family: Member) -> dict[str, Info]:
        def pair(ends: tuple[jax.Array, jax.Array]) -> dict[str, Info]:
            a, b = (jax.tree.map(lambda leaf, i=i: leaf[i], family) for i in ends)
            return between(trainer, a, b, data, alphas, renewal)

        found: dict[str, Info] = jax.lax.map(pair, (first, second))
        return found

    families = jax.tree.map(lambda leaf: leaf.reshape(-1, children, *leaf.shape[1:]), members)
    found: dict[str, Info] = jax.lax.map(of_start, families)
    return found


def error_barriers(task: Task, params: Named, state: Named, points: int) -> NDArray[np.float64]:
    """The error barrier on the line between two children of each start, on test data.

    Args:
      task: their task, a classification.
      params: trained children, `[2 · starts, …]`, those of one start adjacent; leaves by name.
      state: their model states, likewise; the first child's is used along the line.
      points: number of points on each line, the ends included.

    Returns:
      float64 `[starts]`, in [0, 1].
    """
    pairs, states = (
        jax.tree.map(lambda leaf: leaf.reshape(-1, 2, *leaf.shape[1:]), trees.from_named(*both))
        for both in zip((dict(params), dict(state)), task.shapes, strict=True)
    )
    alphas = np.linspace(0, 1, points)

    @jax.jit
    def errors(pair: Params, state: Any) -> Any:
        def error(params: Params) -> jax.Array:
            found = evaluate(task.trainer, params, trees.index(state, 0), task.data.test)
            wrong: jax.Array = 1 - found["accuracy"]
            return wrong

        return along_line(error, trees.index(pair, 0), trees.index(pair, 1), alphas)

    n = len(jax.tree.leaves(pairs)[0])
    lines = [errors(trees.index(pairs, i), trees.index(states, i)) for i in range(n)]
    return barrier(np.stack(lines))
