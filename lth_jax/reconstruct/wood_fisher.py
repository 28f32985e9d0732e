"""WoodFisher: prunes a whole network at once, by the loss instead of the layers' outputs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.landscape.numerics import full_precision
from lth_jax.layouts import Layouts
from lth_jax.pruning.checks import check_prunable
from lth_jax.pruning.granularity import Granularity, weights
from lth_jax.pruning.masks import apply_mask, ones_like, prunable_leaves
from lth_jax.pruning.scopes import Scope, globally
from lth_jax.reconstruct.methods.method import (
    check_damping,
    inverse_factor,
    least_squares,
    work_dtype,
)
from lth_jax.types import Mask, Params, Prunable


def wood_fisher(
    loss: Callable[[Params, Any], jax.Array],
    params: Params,
    batches: Sequence[Any],
    *,
    density: float,
    scope: Scope | None = None,
    granularity: Granularity = weights,
    prunable: Prunable | None = None,
    layouts: Layouts | None = None,
    block: int = 64,
    damping: float = 0.01,
) -> tuple[Params, Mask]:
    """Prunes by the empirical Fisher matrix of the loss and updates the kept weights.

    `F = 1/N Σ_n ∇ℓ_n ∇ℓ_nᵀ` over single examples, in blocks of consecutive weights of a leaf, plus
    λI. The weights with the smallest `w_p² / (2 [F⁻¹]_pp)` are pruned; the others minimise
    `(w' − w)ᵀ F (w' − w)` on the mask, which for one pruned weight is the update of Optimal Brain
    Surgeon. The method does not use layers, so any leaf may be pruned. It stores `block` numbers
    for each prunable weight, and the gradients of one batch.

    Source: Singh & Alistarh (2020), "WoodFisher: efficient second-order approximation for neural
    network compression", sections 3 and 4; there a block is inverted by Woodbury's formula.

    Args:
      loss: `loss(params, batch)`, the mean over the examples of the batch.
      params: tree of floating-point arrays.
      batches: a list of trees of arrays with the examples along the first axis.
      density: the fraction of the prunable weights that stays.
      scope: which scores compete; `lth.globally()` by default.
      granularity: single weights by default; `lth.granularity.n_m(2, 4)` gives 2:4 sparsity.
      prunable: static tree of booleans; `lth.prunable_leaves(params)` by default.
      layouts: the meaning of the kernels' axes, for `granularity` (see `lth.prune`).
      block: weights in a block.
      damping: λ as a share of the mean diagonal of F in the leaf.

    Returns:
      `(params, mask)`: the new parameters, exactly 0 where pruned, in their dtypes; and the mask.

    Raises:
      ValueError: no batches, `block` below 1, `damping` not positive, or gradients that are NaN,
        infinite or all 0 in a leaf.

    >>> loss = lambda params, x: jnp.mean((x @ params["kernel"]) ** 2)
    >>> params = {"kernel": jnp.array([[2.0], [1.0]])}
    >>> pruned, mask = wood_fisher(loss, params, [jnp.eye(2)], density=0.5)
    >>> mask["kernel"].tolist()
    [[True], [False]]
    """
    if not isinstance(batches, list | tuple) or not batches:
        raise ValueError("`batches` must be a list of at least one batch.")
    if block < 1:
        raise ValueError(f"`block` must be at least 1, but is {block!r}.")
    if not check_damping(damping):
        raise ValueError("`damping` must be positive, since a block has few gradients, but is 0.")
    prunable = prunable_leaves(params) if prunable is None else prunable
    used = check_prunable(prunable, params)
    scope = scope or globally()
    count = scope.counts(params, density, prunable=prunable, layouts=layouts)

    leaves, structure = jax.tree.flatten(params)
    chosen = [k for k, use in enumerate(used) if use]
    scores = [jnp.ones(leaf.shape) for leaf in leaves]
    fishers = dict(zip(chosen, _fishers(loss, params, batches, chosen, block), strict=True))
    for k, fisher in fishers.items():
        if not (jnp.isfinite(fisher).all() and fisher.any()):
            name = trees.names(params)[k]
            raise ValueError(f"the gradients of `loss` at '{name}' are NaN, infinite or all 0.")
        fishers[k], score = _scores(leaves[k], fisher, damping)
        scores[k] = _leaf(score, leaves[k])
    every, meaning = ones_like(params), {"prunable": prunable, "layouts": layouts}
    units = granularity.to_units(jax.tree.unflatten(structure, scores), every, **meaning)
    options = {"prunable": units.prunable, "sizes": units.sizes, "layers": units.layers}
    kept = scope.select(units.scores, units.mask, count, **options)
    mask = granularity.to_leaves(kept, every, **meaning)
    masks = jax.tree.leaves(mask)
    for k, fisher in fishers.items():
        new = _fit(_blocks(leaves[k], block), fisher, _blocks(masks[k], block))
        leaves[k] = _leaf(new, leaves[k]).astype(leaves[k].dtype)
    return apply_mask(mask, jax.tree.unflatten(structure, leaves)), mask


def _blocks(leaf: jax.Array, block: int) -> jax.Array:
    """The entries of a leaf as `(blocks, block)`, filled up with 0."""
    return jnp.pad(leaf.reshape(-1), (0, -leaf.size % block)).reshape(-1, block)


def _leaf(blocks: jax.Array, like: jax.Array) -> jax.Array:
    """The inverse of `_blocks` for a leaf of this shape."""
    return blocks.reshape(-1)[: like.size].reshape(like.shape)


def _fishers(
    loss: Any, params: Params, batches: Sequence[Any], chosen: list[int], block: int
) -> list[jax.Array]:
    """The undamped blocks `(blocks, block, block)` of each chosen leaf."""
    number = sum(len(jax.tree.leaves(batch)[0]) for batch in batches)
    leaves = [jax.tree.leaves(params)[k] for k in chosen]
    totals = [
        jnp.zeros((-(-leaf.size // block), block, block), work_dtype(leaf.dtype)) for leaf in leaves
    ]
    for batch in batches:
        totals = _add_fishers(loss, tuple(chosen), params, totals, batch, number)
    return totals


@functools.partial(jax.jit, static_argnums=(0, 1))
def _add_fishers(
    loss: Any,
    chosen: tuple[int, ...],
    params: Params,
    totals: list[jax.Array],
    batch: Any,
    number: int,
) -> list[jax.Array]:
    """`totals` plus `1/number Σ_n ∇ℓ_n ∇ℓ_nᵀ` over the examples of a batch."""
    each = jax.tree.map(lambda x: x[:, None], batch)
    grads = jax.tree.leaves(jax.vmap(jax.grad(loss), (None, 0))(params, each))

    def products(grad: jax.Array, like: jax.Array) -> jax.Array:
        rows = jax.vmap(_blocks, (0, None))(grad.astype(like.dtype), like.shape[-1])
        with full_precision():
            return jnp.einsum("nbi,nbj->bij", rows, rows) / number

    return [total + products(grads[k], total) for k, total in zip(chosen, totals, strict=True)]


@jax.jit
def _scores(leaf: jax.Array, fisher: jax.Array, damping: float) -> tuple[jax.Array, jax.Array]:
    """The damped blocks, and `w² / (2 [F⁻¹]_pp)` of each weight of a leaf."""
    weights = _blocks(leaf, fisher.shape[-1])
    amount = damping * jnp.sum(jnp.diagonal(fisher, axis1=1, axis2=2)) / leaf.size
    whole = fisher + amount * jnp.eye(fisher.shape[-1], dtype=fisher.dtype)
    inverse = jnp.sum(jax.vmap(inverse_factor)(whole) ** 2, axis=1)
    return whole, weights.astype(fisher.dtype) ** 2 / (2 * inverse)


@jax.jit
def _fit(weights: jax.Array, fisher: jax.Array, mask: jax.Array) -> jax.Array:
    w = weights.astype(fisher.dtype)[..., None]
    return jax.vmap(least_squares)(w, fisher, mask[..., None], w)[..., 0]
