"""Stochastic weight averaging: the mean of the weights along the last part of training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lth_jax import trees
from lth_jax.types import Params


class AveragedState(NamedTuple):
    """The state of `averaged`.

    Attributes:
      average: the mean of the weights so far, float as they are; the first ones until then.
      terms: how many weights it is the mean of (int32).
      step: how many updates there have been (int32).
      inner: the inner optimizer's state.
    """

    average: Params
    terms: jax.Array
    step: jax.Array
    inner: Any


def averaged(
    inner: optax.GradientTransformation, *, start: Any, every: Any
) -> optax.GradientTransformationExtraArgs:
    """Keeps the mean of the weights after every `every`-th update from `start` on.

    The updates are the inner optimizer's own: only the mean is added, which `average_of` reads
    (Izmailov et al., 2018, "Averaging weights leads to wider optima"). BatchNorm's statistics
    belong to the weights they were seen with, so a network that has any needs a pass over the data
    in training mode before its mean weights are tested. Weights that are pruned stay 0 in the mean
    as long as the mask does not change.

    Args:
      inner: the optimizer, mask and all.
      start: the first update whose weights count, from 1 on; may be traced.
      every: updates between two that count; may be traced.

    >>> tx = averaged(optax.sgd(1.0), start=2, every=1)
    >>> w = jnp.float32(0.0)
    >>> state = tx.init(w)
    >>> for _ in range(3):  # the weights are −1, −2, −3
    ...     updates, state = tx.update(jnp.float32(1.0), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> float(average_of(state))
    -2.5
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> AveragedState:
        zero = jnp.int32(0)
        return AveragedState(jax.tree.map(jnp.copy, params), zero, zero, inner.init(params))

    def update(
        updates: Params, state: AveragedState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, AveragedState]:
        updates, after = inner.update(updates, state.inner, params, **extra)
        step = state.step + 1
        counts = (step >= start) & ((step - start) % every == 0)
        terms = state.terms + counts.astype(jnp.int32)
        moved = jax.tree.map(
            lambda mean, w: mean + (w - mean) / jnp.maximum(terms, 1).astype(w.dtype),
            state.average,
            optax.apply_updates(params, updates),
        )
        return updates, AveragedState(trees.where(counts, moved, state.average), terms, step, after)

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
