"""Selects the weights of a matrix that are kept: by number, mask or pattern."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.pruning.checks import check_count
from lth_jax.pruning.topk import largest


@jax.tree_util.register_static
@dataclass(frozen=True)
class Pattern:
    """N:M sparsity: of every `m` consecutive inputs of an output at most `n` stay (2:4, 4:8).

    Source: Mishra et al. (2021), "Accelerating sparse deep neural networks".

    Attributes:
      n: kept in each group, 1 ≤ n ≤ m.
      m: size of a group; it divides the inputs of each layer.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not all(isinstance(x, int) for x in (self.n, self.m)) or not 1 <= self.n <= self.m:
            raise ValueError(
                f"`pattern` must be whole numbers 1 ≤ n ≤ m, but is ({self.n!r}, {self.m!r})."
            )


Keep: TypeAlias = Any
"""Which of the weights `(inputs, outputs)` are kept: a number of them (int32 scalar), a number for
each output (int32 `(outputs,)`), the mask itself (boolean `(inputs, outputs)`), or a `Pattern`.
Numbers may be traced; they are then not checked, and a number that is too large keeps all
weights."""


def is_mask(keep: Keep) -> bool:
    """Whether `keep` is a mask."""
    return not isinstance(keep, Pattern) and jnp.ndim(keep) == 2


def check_keep(keep: Keep, shape: tuple[int, int]) -> None:
    """Raises unless `keep` fits weights of this shape.

    Raises:
      ValueError: another shape, a number out of range, or a pattern that does not divide.
      TypeError: numbers that are not whole, or a mask that is not boolean.

    >>> check_keep(7, (2, 3))
    Traceback (most recent call last):
      ...
    ValueError: `keep` is 7, but it must lie between 0 and 6 weights.
    """
    inputs, outputs = shape
    if isinstance(keep, Pattern):
        if inputs % keep.m:
            raise ValueError(
                f"`keep` is {keep.n}:{keep.m}, but {keep.m} does not divide {inputs} inputs."
            )
        return
    if jnp.shape(keep) not in ((), (outputs,), shape):
        raise ValueError(
            f"`keep` has shape {jnp.shape(keep)}, but weights {shape} need a number, one for each "
            f"of {outputs} outputs, a mask, or a `Pattern`."
        )
    if is_mask(keep):
        if jnp.result_type(keep) != jnp.bool_:
            raise TypeError(f"`keep` has dtype {jnp.result_type(keep)}, but masks are boolean.")
        return
    most = inputs * outputs if jnp.ndim(keep) == 0 else inputs
    if isinstance(keep, jax.core.Tracer) or jnp.ndim(keep) == 0:
        check_count("keep", keep, most)
    else:
        for extreme in (np.min(keep), np.max(keep)):
            check_count("keep", extreme, most)


def select(scores: jax.Array, keep: Keep) -> jax.Array:
    """The mask of the best scores; ties by position, the mask itself where `keep` is one.

    Args:
      scores: `(inputs, outputs)`; higher = keep.
      keep: see `Keep`.

    >>> scores = jnp.array([[3.0, 1.0], [2.0, 5.0]])
    >>> select(scores, 1).tolist(), select(scores, jnp.array([1, 0])).tolist()
    ([[False, False], [False, True]], [[True, False], [False, False]])
    """
    if isinstance(keep, Pattern):
        grouped = scores.reshape(-1, keep.m, scores.shape[1])
        return (_rank(grouped, 1) < keep.n).reshape(scores.shape)
    if is_mask(keep):
        return jnp.asarray(keep)
    if jnp.ndim(keep) == 1:
        return _rank(scores, 0) < keep
    return largest([scores], [jnp.ones(scores.shape, bool)], jnp.asarray(keep))[0]


def in_rows(keep: Keep, start: jax.Array, end: jax.Array, inputs: int) -> Keep:
    """The share of a number, or of numbers, that falls on the rows from `start` to `end`.

    The shares of consecutive ranges sum to the number, and none exceeds what its rows hold.
    """
    whole, rest = jnp.divmod(jnp.asarray(keep, jnp.uint32), jnp.uint32(inputs))
    start, end = start.astype(jnp.uint32), end.astype(jnp.uint32)
    share = whole * (end - start) + rest * end // inputs - rest * start // inputs
    return share.astype(jnp.int32)


def _rank(scores: jax.Array, axis: int) -> jax.Array:
    """The place of each entry along an axis in descending order."""
    order = jnp.argsort(-scores, axis=axis, stable=True)
    return jnp.argsort(order, axis=axis, stable=True)
