"""Checks of the arguments of curvature functions."""

from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.types import Mask, Params


class NotFiniteError(ValueError):
    """A loss or a curvature product is NaN or infinite at the given point.

    >>> issubclass(NotFiniteError, ValueError)
    True
    """


def check_params(params: Params, name: str = "params", *, leaves: str = "*") -> None:
    """Raises unless `params` is a tree of at least one array, floating-point where chosen.

    Args:
      params: the tree.
      name: the argument's name.
      leaves: pattern of leaf names, as in `fnmatch`.

    Raises:
      ValueError: there is no array.
      TypeError: a chosen leaf is not floating-point.

    >>> check_params({"n": jnp.arange(2)})
    Traceback (most recent call last):
      ...
    TypeError: `params` at 'n' must be floating-point, got int32.
    """
    if not jax.tree.leaves(params):
        raise ValueError(f"`{name}` must hold at least one array, got none.")
    for leaf_name, leaf in trees.to_named(params).items():
        dtype = jnp.result_type(leaf)
        if fnmatchcase(leaf_name, leaves) and not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"`{name}` at '{leaf_name}' must be floating-point, got {dtype}.")


def check_boolean(name: str, mask: Mask) -> None:
    """Raises `TypeError` unless every leaf of `mask` is boolean.

    >>> check_boolean("mask", {"w": jnp.zeros(2)})
    Traceback (most recent call last):
      ...
    TypeError: `mask` at 'w' must be boolean, got float32.
    """
    for leaf_name, leaf in trees.to_named(mask).items():
        if jnp.result_type(leaf) != jnp.bool_:
            raise TypeError(
                f"`{name}` at '{leaf_name}' must be boolean, got {jnp.result_type(leaf)}."
            )


def check_scalar(value: Any) -> None:
    """Raises `ValueError` unless a loss, or its shape and dtype, is one floating-point number.

    >>> check_scalar(jnp.zeros(()))
    """
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"`loss` must return one floating-point number, got {value}.")


def check_finite(i: int, value: jax.Array) -> None:
    """Raises `NotFiniteError` if the loss on batch `i` is NaN or infinite and not traced.

    >>> check_finite(0, jnp.zeros(()))
    """
    if not isinstance(value, jax.core.Tracer) and not bool(jnp.isfinite(value)):
        raise NotFiniteError(f"`loss` must be finite at `params`, got {float(value)} on batch {i}.")


def batch_size(i: int, batch: Any) -> int:
    """The number of examples in batch `i`.

    Raises:
      ValueError: if there are none, or leaves have unequal lengths.

    >>> batch_size(0, (jnp.ones((3, 2)), jnp.ones(3)))
    3
    """
    lengths = {leaf.shape[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves(batch)}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            "`batches` must hold examples along the first axis of every leaf, "
            f"but batch {i} has leaves of lengths {sorted(lengths)}."
        )
    return lengths.pop()
