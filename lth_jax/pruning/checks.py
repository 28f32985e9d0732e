"""Checks of arguments: one sentence for each error, before any work starts."""

import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.pruning.compiled import compiled
from lth_jax.types import Mask, Params, Prunable, Scores


def check_params(params: Params, name: str = "params") -> None:
    """Raises unless `params` is a non-empty tree of non-empty floating-point arrays.

    Raises:
      ValueError: there is no leaf, or a leaf has no entries.
      TypeError: a leaf is not a floating-point array.

    >>> check_params({"step": jnp.arange(3)})
    Traceback (most recent call last):
      ...
    TypeError: `params` at 'step' has dtype int32, but only floating-point arrays can be pruned.
    """
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError(f"`{name}` has no leaves; give a tree of floating-point arrays.")
    for leaf_name, leaf in zip(trees.names(params), leaves, strict=True):
        dtype = getattr(leaf, "dtype", type(leaf).__name__)
        if not hasattr(leaf, "shape") or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"`{name}` at '{leaf_name}' has dtype {dtype}, "
                "but only floating-point arrays can be pruned."
            )
        if leaf.size == 0:
            raise ValueError(f"`{name}` at '{leaf_name}' is empty (shape {leaf.shape}).")


def check_alone(params: Params, name: str = "params") -> None:
    """Raises if `params` holds other collections of Flax besides the parameters.

    Raises:
      ValueError: `params` is a mapping with the key `"params"` and others.

    >>> check_alone({"params": {"w": jnp.ones(4)}, "batch_stats": {"mean": jnp.ones(4)}})
    Traceback (most recent call last):
      ...
    ValueError: `params` holds the collections params, batch_stats; give the parameters alone, ...
    """
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        raise ValueError(
            f"`{name}` holds the collections {', '.join(map(str, params))}; give the parameters "
            "alone, such as `variables['params']`, or a `prunable` for all collections, such as "
            "`structure.prunable(found)`."
        )


def check_mask(mask: Mask, params: Params, name: str = "mask") -> None:
    """Raises unless `mask` has the structure and shapes of `params` and boolean leaves.

    Raises:
      ValueError: another structure or another shape.
      TypeError: a leaf that is not boolean.

    >>> check_mask({"w": jnp.ones(2)}, {"w": jnp.zeros(2)})
    Traceback (most recent call last):
      ...
    TypeError: `mask` at 'w' has dtype float32, but masks are boolean.
    """
    if not same_structure(mask, params):
        check_alone(params)
    trees.check_same_structure(name, mask, "params", params)
    for leaf_name, leaf in zip(trees.names(mask), jax.tree.leaves(mask), strict=True):
        if leaf.dtype != jnp.bool_:
            raise TypeError(
                f"`{name}` at '{leaf_name}' has dtype {leaf.dtype}, but masks are boolean."
            )


def same_structure(a: Any, b: Any) -> bool:
    """Whether two trees have the same containers and as many leaves at the same places.

    >>> same_structure({"w": 1.0}, {"w": jnp.zeros(3)}), same_structure(1.0, [1.0])
    (True, False)
    """
    here: Any = jax.tree.structure(a)
    return bool(here == jax.tree.structure(b))


def check_prunable(prunable: Prunable, like: Any) -> list[bool]:
    """The leaves of `prunable` as a list, in the order of the leaves of `like`.

    Raises:
      ValueError: another structure than `like`, or nothing is prunable.
      TypeError: a leaf that is not a Python boolean, such as a traced one (`prunable` is static, so
        close over it instead of passing it through `jax.jit`).

    >>> check_prunable({"w": True, "b": False}, {"w": jnp.ones((2, 2)), "b": jnp.ones(2)})
    [False, True]
    """
    leaves = jax.tree.leaves(prunable)
    if not same_structure(prunable, like):
        check_alone(like)
        raise ValueError(
            "`prunable` must have the structure of the parameters: it has leaves "
            f"{trees.names(prunable)[:3]}…, they have {trees.names(like)[:3]}…."
        )
    if not all(isinstance(leaf, bool | np.bool_) for leaf in leaves):
        raise TypeError("`prunable` must be a static tree of Python booleans; close over it.")
    if not any(leaves):
        raise ValueError("`prunable` has no True leaf, so there is nothing to prune.")
    return [bool(leaf) for leaf in leaves]


def check_scores(scores: Scores, mask: Mask) -> None:
    """Raises unless `scores` fits `mask` and is floating-point.

    Raises:
      ValueError: another structure or shape.
      TypeError: a leaf that is not floating-point.
    """
    trees.check_same_structure("scores", scores, "mask", mask)
    for leaf_name, leaf in zip(trees.names(scores), jax.tree.leaves(scores), strict=True):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"`scores` at '{leaf_name}' has dtype {leaf.dtype}, but scores are floats."
            )


def check_finite(scores: Scores, mask: Mask, prunable: Prunable) -> None:
    """Raises unless the live, prunable scores are finite.

    Traced scores, inside `jax.jit` or `jax.vmap`, are not checked: see `scores.inspect`.

    Raises:
      ValueError: a live score is NaN or infinite.

    >>> check_finite({"w": jnp.array([jnp.inf])}, {"w": jnp.array([False])}, {"w": True})
    """
    leaves = (jax.tree.leaves(tree) for tree in (scores, mask, prunable))
    named = {
        name: (score, live)
        for name, score, live, use in zip(trees.names(scores), *leaves, strict=True)
        if use and not any(isinstance(leaf, jax.core.Tracer) for leaf in (score, live))
    }
    if not named:
        return
    with jax.ensure_compile_time_eval():  # the arrays are concrete even inside a trace
        bad = _nonfinite(named)
    for name in named:
        if bad[name]:
            raise ValueError(
                f"`scores` at '{name}' has entries that are NaN or infinite; scores must be finite."
            )


@compiled
def _nonfinite(pairs: dict[str, tuple[jax.Array, jax.Array]]) -> dict[str, jax.Array]:
    """Whether any of the live scores is not finite, by name."""
    return {name: jnp.any(live & ~jnp.isfinite(score)) for name, (score, live) in pairs.items()}


def check_count(name: str, count: Any, size: int) -> None:
    """Raises unless `count` is a whole number in [0, size]; a traced one is checked for its dtype.

    Raises:
      TypeError: it is not of an integer dtype.
      ValueError: it is concrete and out of range.

    >>> check_count("count", 0.2, 10)
    Traceback (most recent call last):
      ...
    TypeError: `count` is 0.2, but it must be a whole number of weights; a scope makes one from ...
    """
    if isinstance(count, bool) or not jnp.issubdtype(jnp.result_type(count), jnp.integer):
        shown = "traced" if isinstance(count, jax.core.Tracer) else f"{count}"
        raise TypeError(
            f"`{name}` is {shown}, but it must be a whole number of weights; a scope makes one "
            "from a density: `scope.counts(params, density, prunable=prunable)`."
        )
    if isinstance(count, jax.core.Tracer):
        return
    value = int(np.asarray(count))
    if not 0 <= value <= size:
        raise ValueError(f"`{name}` is {value}, but it must lie between 0 and {size} weights.")


def check_fraction(name: str, value: Any) -> float:
    """`value` as a float if it lies in (0, 1].

    Raises:
      ValueError: it does not, or is not finite.
      TypeError: it is not a number.

    >>> check_fraction("density", 1.5)
    Traceback (most recent call last):
      ...
    ValueError: `density` must lie in (0, 1], but is 1.5.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number in (0, 1], but is {value!r}.")
    fraction = float(value)
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"`{name}` must lie in (0, 1], but is {fraction}.")
    return fraction
