"""What every function of this room refuses, in one sentence each."""

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.types import Mask, Params


class NotFiniteError(ValueError):
    """A loss or a product with its curvature is NaN or infinite at the point given.

    >>> issubclass(NotFiniteError, ValueError)
    True
    """


def check_params(params: Params, name: str = "params") -> None:
    """Raises unless `params` is a tree of at least one array, all of them floating-point.

    Raises:
      ValueError: there is no array.
      TypeError: a leaf is not floating-point.

    >>> check_params({"n": jnp.arange(2)})
    Traceback (most recent call last):
      ...
    TypeError: `params` at 'n' must be floating-point, got int32.
    """
    if not jax.tree.leaves(params):
        raise ValueError(f"`{name}` must hold at least one array, got none.")
    for leaf_name, leaf in trees.to_named(params).items():
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
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
