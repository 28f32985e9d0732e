"""Losses along lines and over planes between networks, and error barriers.

Every function takes `evaluate(params) -> a number or a tree of numbers`, most often mean losses and
error rates over a data set, and evaluates it on a whole grid in one program. A network with
BatchNorm needs separate statistics at each point (Jordan et al., 2023), which `evaluate` computes:

    evaluate = lambda p: loss(p, renew_state(model.apply, p, state, batches), test_batch)
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax import trees
from lth_jax.landscape.checks import check_boolean, check_params
from lth_jax.types import Batch, Key, Mask, Params

Evaluate = Callable[[Params], Any]
"""`params -> tree of numbers`, traceable."""


def along_line(
    evaluate: Evaluate,
    first: Params,
    second: Params,
    alphas: ArrayLike,
    *,
    align: Callable[[Params, Params], Params] | None = None,
) -> Any:
    """`evaluate((1 − α) first + α second)` for every α (Goodfellow et al., 2015).

    One program evaluates the whole grid, and `jax.vmap` maps it over pairs of networks. If both
    networks have the same mask, all points of the line have it too.

    Args:
      evaluate: the function to evaluate.
      first: the parameters at α = 0.
      second: those at α = 1, a tree of the same structure.
      alphas: `[m]`.
      align: `(first, second) -> second` with permuted units, so that the line does not connect
        permuted copies (Entezari et al., 2022). Called outside the trace.

    Returns:
      The result of `evaluate`, every leaf with a new first axis `[m]`.

    Raises:
      TypeError: if a leaf is not floating-point.
      ValueError: if the two trees differ, or `alphas` is not one-dimensional.

    >>> along_line(lambda w: w**2, jnp.float32(-1.0), jnp.float32(1.0), [0.0, 0.5, 1.0]).tolist()
    [1.0, 0.0, 1.0]
    """
    check_params(first, "first")
    check_params(second, "second")
    trees.check_same_structure("second", second, "first", first)
    if align is not None:
        second = align(first, second)
        trees.check_same_structure("align's result", second, "first", first)
    return jax.lax.map(lambda a: evaluate(mix(first, second, a)), _grid("alphas", alphas))


def mix(first: Params, second: Params, alpha: ArrayLike) -> Params:
    """`(1 − α) first + α second`, exact at 0 and 1 if both are finite.

    Args:
      first: floating-point arrays, the parameters at α = 0.
      second: those at α = 1, a tree of the same structure and shapes.
      alpha: α, a number; cast to the dtype of each leaf of `first`.

    Returns:
      A tree of the same structure and shapes, with the promoted dtypes of both.

    Raises:
      ValueError: if the structures differ.
      TypeError: if a leaf is not floating-point, or two shapes cannot be broadcast.

    >>> mix({"w": jnp.zeros(1)}, {"w": jnp.full(1, 4.0)}, 0.25)["w"].tolist()
    [1.0]
    """
    check_params(first, "first")
    check_params(second, "second")

    def leaf(a: jax.Array, b: jax.Array) -> jax.Array:
        t = jnp.asarray(alpha, a.dtype)
        return (1 - t) * a + t * b

    return jax.tree.map(leaf, *map(_arrays, (first, second)))


def barrier(values: ArrayLike) -> NDArray[np.float64]:
    """The error barrier `max_α E(α) − (E(0) + E(1))/2` (Frankle et al., 2020).

    Networks whose barrier in the error rate is below about 0.02 count as linearly connected there.

    Args:
      values: `[..., m]`, along the line, from α = 0 to α = 1.

    Returns:
      float64 `[...]`, at least `|E(0) − E(1)|/2`; NaN where a value is.

    Raises:
      ValueError: if there are fewer than 3 points.

    >>> barrier([1.0, 5.0, 2.0]).item()
    3.5
    """
    line = _line(values)
    return line.max(axis=-1) - (line[..., 0] + line[..., -1]) / 2


def barrier_above_chord(values: ArrayLike, alphas: ArrayLike) -> NDArray[np.float64]:
    """The barrier above the chord: `max_α E(α) − (1 − α) E(0) − α E(1)`.

    Entezari et al. (2022), Ainsworth et al. (2023). Zero for a convex `E`.

    Args:
      values: `[..., m]`, along the line.
      alphas: `[m]`, rising from 0 to 1.

    Returns:
      float64 `[...]`, never negative; NaN where a value is.

    Raises:
      ValueError: if the two differ in length, there are fewer than 3 points, or `alphas` does not
        rise from 0 to 1.

    >>> barrier_above_chord([0.0, 4.0, 2.0], [0.0, 0.5, 1.0]).item()
    3.0
    """
    line, at = _line(values), np.asarray(alphas, np.float64)
    if at.shape != line.shape[-1:] or at[0] != 0 or at[-1] != 1 or (np.diff(at) <= 0).any():
        raise ValueError(
            f"`alphas` must rise from 0 to 1 over the {line.shape[-1]} `values`, got {at.tolist()}."
        )
    chord = (1 - at) * line[..., :1] + at * line[..., -1:]
    return (line - chord).max(axis=-1)


def over_plane(
    evaluate: Evaluate, params: Params, first: Params, second: Params, xs: ArrayLike, ys: ArrayLike
) -> Any:
    """`evaluate(params + x first + y second)` for every x and y, a loss surface (Li et al., 2018).

    Args:
      evaluate: the function to evaluate.
      params: the centre.
      first: a direction, a tree like `params`; see `filter_direction`.
      second: a second direction.
      xs: `[m]`, steps along the first.
      ys: `[n]`, steps along the second.

    Returns:
      The result of `evaluate`, every leaf with new first axes `[m, n]`.

    Raises:
      TypeError: if a leaf is not floating-point.
      ValueError: if the trees differ, or `xs` or `ys` is not one-dimensional.

    >>> w = jnp.zeros(2)
    >>> over_plane(jnp.sum, w, w.at[0].set(1.0), w.at[1].set(1.0), [0.0, 1.0], [0.0, 5.0]).tolist()
    [[0.0, 5.0], [1.0, 6.0]]
    """
    for name, tree in {"params": params, "first": first, "second": second}.items():
        check_params(tree, name)
        trees.check_same_structure(name, tree, "params", params)
    rows, columns = _grid("xs", xs), _grid("ys", ys)

    def at(x: jax.Array, y: jax.Array) -> Any:
        def leaf(p: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
            return p + x.astype(p.dtype) * u + y.astype(p.dtype) * v

        return evaluate(jax.tree.map(leaf, *map(_arrays, (params, first, second))))

    return jax.lax.map(lambda x: jax.lax.map(lambda y: at(x, y), columns), rows)


def filter_direction(key: Key, params: Params, mask: Mask | None = None) -> Params:
    """A random direction with the filter norms of `params` (Li et al., 2018).

    Normal entries, 0 off the mask; then each filter, a slice along the last axis as Flax orders
    kernels, is scaled to the norm of the same filter of the (masked) parameters. Steps are
    therefore comparable between rescaled copies of a network. Leaves of fewer than two axes, biases
    and normalisation, stay 0.

    Args:
      key: key of the entries.
      params: the parameters.
      mask: boolean tree like `params`; by default all True.

    Returns:
      A tree of the structure, shapes and dtypes of `params`.

    Raises:
      TypeError: if a leaf of `params` is not floating-point or one of `mask` not boolean.
      ValueError: if the trees differ, or `params` has no leaf.

    >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.ones(2)}
    >>> direction = filter_direction(jax.random.key(0), params)
    >>> jnp.linalg.norm(direction["kernel"], axis=0).round(4).tolist(), direction["bias"].tolist()
    ([5.0, 2.0], [0.0, 0.0])
    """
    check_params(params)
    params = _arrays(params)
    if mask is None:
        mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    trees.check_same_structure("mask", mask, "params", params)
    check_boolean("mask", mask)
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(
        structure,
        [
            _filter_direction(jax.random.fold_in(key, i), p, m)
            for i, (p, m) in enumerate(zip(leaves, jax.tree.leaves(mask), strict=True))
        ],
    )


def renew_state(
    apply: Callable[..., tuple[Any, Any]],
    params: Params,
    state: Any,
    batches: Iterable[Batch],
    *,
    key: Key | None = None,
) -> Any:
    """A model's state (BatchNorm statistics) after passes in training mode at fixed `params`.

    With momentum ρ, a fraction `ρⁿ` of the old statistics remains after n batches, so pass enough
    batches.

    Args:
      apply: `Model.apply`.
      params: the parameters.
      state: the initial state.
      batches: used once each, in order; only their inputs `x` are read.
      key: key for dropout, if any; folded with the index of the batch.

    Returns:
      The state after the last batch, as `apply` returns it; without batches, the initial one.

    Raises:
      AttributeError: if a batch has no `x`. Errors of `apply` are passed on.

    >>> apply = lambda p, s, x, *, key, train: (x, 0.5 * s + 0.5 * x.mean())
    >>> batches = [Batch(jnp.ones(4), None)] * 2
    >>> renew_state(apply, {}, jnp.float32(0.0), batches).item()
    0.75
    """
    for i, batch in enumerate(batches):
        own = None if key is None else jax.random.fold_in(key, i)
        _, state = apply(params, state, batch.x, key=own, train=True)
    return state


def _filter_direction(key: jax.Array, leaf: jax.Array, mask: jax.Array) -> jax.Array:
    if leaf.ndim < 2:
        return jnp.zeros_like(leaf)
    zero = jnp.zeros_like(leaf)
    direction = jnp.where(mask, jax.random.normal(key, leaf.shape, leaf.dtype), zero)
    wanted, there = (_filter_norms(tree) for tree in (jnp.where(mask, leaf, zero), direction))
    return direction * (wanted / jnp.where(there > 0, there, jnp.ones_like(there)))


def _filter_norms(leaf: jax.Array) -> jax.Array:
    axes = tuple(range(leaf.ndim - 1))
    return jnp.sqrt(jnp.sum(jnp.square(leaf), axis=axes, keepdims=True))


def _arrays(tree: Params) -> Params:
    return jax.tree.map(jnp.asarray, tree)


def _grid(name: str, values: ArrayLike) -> jax.Array:
    grid = jnp.asarray(values, float)
    if grid.ndim != 1 or not grid.size:
        raise ValueError(f"`{name}` must be one-dimensional and not empty, got {grid.shape}.")
    return grid


def _line(values: ArrayLike) -> NDArray[np.float64]:
    line = np.asarray(values, np.float64)
    if line.ndim < 1 or line.shape[-1] < 3:
        raise ValueError(f"`values` must hold at least 3 points of a line, got {line.shape}.")
    return line
