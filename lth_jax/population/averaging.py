"""Stochastic weight averaging: the mean of the weights along the last part of training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lth_jax import keys, trees
from lth_jax.landscape import renew_state
from lth_jax.population.segment import Member
from lth_jax.types import Batch, Model, Params


class AveragedState(NamedTuple):
    """The state of `averaged`.

    Attributes:
      average: the mean of the weights so far, float as they are; the latest ones until it begins.
      terms: how many weights it is the mean of (int32); 0 before there is an update.
      inner: the inner optimizer's state.
    """

    average: Params
    terms: jax.Array
    inner: Any


def averaged(
    inner: optax.GradientTransformation, *, start: Any, every: Any
) -> optax.GradientTransformationExtraArgs:
    """Keeps the mean of the weights after every `every`-th update from `start` on.

    The updates are the inner optimizer's own: only the mean is added, which `average_of` reads
    (Izmailov et al., 2018, "Averaging weights leads to wider optima"). BatchNorm's statistics
    belong to the weights they were seen with; `mean_network` renews them. Weights that are pruned
    stay 0 in the mean as long as the mask does not change.

    Args:
      inner: the optimizer, mask and all.
      start: the first update whose weights count, from 1 on; may be traced. Until then the mean is
        the latest weights.
      every: updates between two that count; may be traced.

    Returns:
      A transformation whose `update` takes the number of updates before this one as `step`: where
      training is set back, the mean begins anew.

    >>> tx = averaged(optax.sgd(1.0), start=2, every=1)
    >>> w = jnp.float32(0.0)
    >>> state = tx.init(w)
    >>> for step in range(3):  # the weights are −1, −2, −3
    ...     updates, state = tx.update(jnp.float32(1.0), state, w, step=step)
    ...     w = optax.apply_updates(w, updates)
    >>> float(average_of(state))
    -2.5
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> AveragedState:
        return AveragedState(jax.tree.map(jnp.copy, params), jnp.int32(0), inner.init(params))

    def update(
        updates: Params,
        state: AveragedState,
        params: Params | None = None,
        *,
        step: Any,
        **extra: Any,
    ) -> tuple[Params, AveragedState]:
        updates, after = inner.update(updates, state.inner, params, step=step, **extra)
        since = jnp.asarray(step, jnp.int32) + 1 - jnp.asarray(start, jnp.int32)
        counts = (since >= 0) & (since % every == 0)
        terms = jnp.where(since <= 0, 1, state.terms + counts.astype(jnp.int32))

        def mean(average: jax.Array, w: jax.Array) -> jax.Array:
            share = 1 / terms.astype(w.dtype)
            return (1 - share) * average + share * w  # exactly w if it is the only one

        moved = jax.tree.map(mean, state.average, optax.apply_updates(params, updates))
        average = trees.where(counts | (since <= 0), moved, state.average)
        return updates, AveragedState(average, terms, after)

    return optax.GradientTransformationExtraArgs(init, update)


def average_of(opt_state: Any) -> Params:
    """The mean weights in an optimizer's state, wherever `averaged` stands in it.

    Raises:
      ValueError: if it is not there, or there more than once.

    >>> tx = averaged(optax.adam(0.1), start=1, every=1)
    >>> average_of(tx.init(jnp.ones(2))).tolist()
    [1.0, 1.0]
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, AveragedState))
    found = [leaf for leaf in leaves if isinstance(leaf, AveragedState)]
    if len(found) != 1:
        raise ValueError(f"`opt_state` must hold one state of `averaged`, it holds {len(found)}.")
    return found[0].average


def mean_network(model: Model, batch_size: int) -> Callable[[Member, Batch], Member]:
    """A `Trainer.eval_member`: the member with its mean weights, and a state that belongs to them.

    The optimizer's state must hold one of `averaged`. BatchNorm's statistics are renewed by one
    pass over the training data in training mode, begun from the member's own.

    Args:
      model: the network.
      batch_size: examples per batch of that pass; what is left over is not shown.
    """

    def averaged_member(member: Member, train: Batch) -> Member:
        member = member._replace(params=average_of(member.opt_state))
        if not jax.tree.leaves(member.state):
            return member
        count = len(train.y) // batch_size
        batches = jax.tree.map(
            lambda a: a[: count * batch_size].reshape(count, batch_size, *a.shape[1:]), train
        )
        stream = keys.stream(member.data_key, "average")

        def renew(state: Any, shown: tuple[Any, Batch]) -> tuple[Any, None]:
            i, batch = shown
            key = jax.random.fold_in(stream, i)
            return renew_state(model.apply, member.params, state, [batch], key=key), None

        state, _ = jax.lax.scan(renew, member.state, (jnp.arange(count), batches))
        return member._replace(state=state)

    return averaged_member
