"""Stochastic weight averaging: the mean of the weights over the last part of training."""

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
      average: the mean of the weights so far, in their dtypes; the latest weights before averaging
        starts.
      terms: number of averaged weights (int32); 0 before the first update.
      inner: the inner optimizer's state.
    """

    average: Params
    terms: jax.Array
    inner: Any


def averaged(
    inner: optax.GradientTransformation, *, start: Any, every: Any
) -> optax.GradientTransformationExtraArgs:
    """Averages the weights after every `every`-th update from `start` on.

    Source: Izmailov et al. (2018), "Averaging weights leads to wider optima".

    Updates are those of the inner optimizer; `average_of` reads the mean. BatchNorm statistics do
    not fit the mean weights; `mean_network` recomputes them. Pruned weights are 0 in the mean as
    long as the mask does not change.

    Args:
      inner: the optimizer, including the mask.
      start: the first averaged update, counted from 1; may be traced. Before it, the mean is the
        latest weights.
      every: number of updates between averaged weights; may be traced.

    Returns:
      A transformation whose `update` takes `step`, the number of earlier updates. If training is
      rewound before `start`, the mean restarts.

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
    """The mean weights in an optimizer's state that contains a state of `averaged`.

    Raises:
      ValueError: it contains none, or several.

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
    """A `Trainer.eval_member`: the member with its mean weights and recomputed model state.

    The optimizer's state must contain one of `averaged`. BatchNorm statistics are recomputed by one
    pass over the training data in training mode, starting from the member's statistics.

    Source: Izmailov et al. (2018), "Averaging weights leads to wider optima".

    Args:
      model: the network.
      batch_size: examples per batch of that pass; a remainder is not used.

    Returns:
      `(member, training data) -> member`: one member, no member axis, with other `params` and
      `state`.

    Raises:
      ValueError: when called, the optimizer's state contains no state of `averaged`, or several; or
        `batch_size` exceeds the number of training examples, and the model has a state.

    >>> import flax.linen as nn
    >>> from lth_jax.models import as_model
    >>> params = {"bias": jnp.zeros(1), "kernel": jnp.ones((2, 1))}
    >>> slots = AveragedState(jax.tree.map(lambda leaf: leaf / 2, params), jnp.int32(2), ())
    >>> key, mask = jax.random.key(0), jax.tree.map(lambda leaf: leaf == leaf, params)
    >>> member = Member(params, {}, slots, mask, key, key, {}, jnp.array(True))
    >>> data = Batch(jnp.zeros((4, 2)), jnp.zeros(4))
    >>> mean_network(as_model(nn.Dense(1)), batch_size=2)(member, data).params["kernel"].tolist()
    [[0.5], [0.5]]
    """

    def averaged_member(member: Member, train: Batch) -> Member:
        member = member._replace(params=average_of(member.opt_state))
        if not jax.tree.leaves(member.state):
            return member
        count = len(train.y) // batch_size
        if not count:
            raise ValueError(
                f"`batch_size` is {batch_size}, but there are {len(train.y)} training examples to "
                "renew the model's state."
            )
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


def moving(
    mean: optax.GradientTransformationExtraArgs, window: int
) -> optax.GradientTransformationExtraArgs:
    """An exponential moving average of decay `1 − 1/window`, from the mean of `averaged`.

    The n-th averaged weights count `1/n` up to `n = window`, and `1/window` from there on, so the
    first weights have no bias to correct. The number of terms stays at most `window`.

    Args:
      mean: from `averaged`.
      window: number of averaged weights that count, at least 1.

    >>> sgd = moving(averaged(optax.sgd(1.0), start=0, every=1), window=1)
    >>> _, state = sgd.update(jnp.ones(1), sgd.init(jnp.zeros(1)), jnp.zeros(1), step=0)
    >>> average_of(state).tolist()  # a window of 1: the latest weights
    [-1.0]
    """

    def update(updates: Any, state: AveragedState, *args: Any, **extra: Any) -> Any:
        full = state._replace(terms=jnp.minimum(state.terms, window - 1))
        return mean.update(updates, full, *args, **extra)

    return optax.GradientTransformationExtraArgs(mean.init, update)
