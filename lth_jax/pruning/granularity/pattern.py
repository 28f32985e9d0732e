"""N:M patterns: single weights, of which only the best of each group of neighbours can be kept."""

from typing import Literal

import jax
import jax.numpy as jnp

from lth_jax.layouts import Layouts
from lth_jax.pruning.compiled import shared
from lth_jax.pruning.granularity.boxes import Leaf, check_divides, leaves_of, map_leaves
from lth_jax.pruning.granularity.units import Granularity, Units, weights
from lth_jax.types import Mask, Prunable, Scores


@shared
def n_m(n: int, m: int, along: Literal["inputs", "outputs"] = "inputs") -> Granularity:
    """Keeps at most the best `n` of every `m` neighbours (2:4, 4:8, …).

    The pattern is applied first; the scope then keeps `count` of the remaining weights. A count of
    n/m of the weights or more gives exactly n:m, a smaller one a sparser mask.

    Args:
      n: number kept of each group, 1 ≤ n ≤ m.
      m: size of a group.
      along: which neighbours form a group; by default the inputs of one output, along which sparse
        tensor cores need the pattern (Mishra et al., 2021).

    Raises:
      ValueError: `n`, `m` or `along` out of range, or (from `to_units`) `m` does not divide the
        inputs (outputs) of a prunable leaf, or their axes are not known.

    >>> scores, mask = {"w": jnp.array([[1.0, 4.0, 3.0, 2.0]])}, {"w": jnp.ones((1, 4), bool)}
    >>> units = n_m(2, 4, along="outputs").to_units(scores, mask, prunable={"w": True})
    >>> units.mask["w"].tolist()
    [[False, True, True, False]]
    """
    if not 1 <= n <= m:
        raise ValueError(f"`n` must lie in [1, `m`], but n:m is {n}:{m}.")
    if along not in ("inputs", "outputs"):
        raise ValueError(f"`along` must be 'inputs' or 'outputs', but is {along!r}.")
    axis = 2 if along == "inputs" else 3

    def best(leaf: Leaf | None, scores: jax.Array, mask: jax.Array) -> jax.Array:
        if leaf is None:
            return mask
        check_divides(leaf, along, m)
        layers, window, inputs, outputs = leaf.matrix
        shape = [layers, window, inputs, outputs]
        shape[axis : axis + 1] = [shape[axis] // m, m]
        s, live = (leaf.layout.to_matrix(x).reshape(shape) for x in (scores, mask))
        kept = _best_of_axis(s, live, n, axis + 1)
        return leaf.layout.from_matrix(kept.reshape(leaf.matrix), leaf.shape)

    def to_units(
        scores: Scores, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Units:
        leaves = leaves_of("The granularity `n_m`", mask, prunable, layouts)
        eligible = map_leaves(best, leaves, scores, mask)
        return weights.to_units(scores, eligible, prunable=prunable, layouts=layouts)

    return Granularity(to_units, weights.to_leaves, f"n_m({n}, {m})")


def _best_of_axis(scores: jax.Array, live: jax.Array, n: int, axis: int) -> jax.Array:
    """The best `n` live entries along an axis: those that fewer than `n` others beat."""
    position = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    beaten_by = jnp.zeros(scores.shape, jnp.int32)
    for j in range(scores.shape[axis]):
        other = jax.lax.slice_in_dim(scores, j, j + 1, axis=axis)
        is_live = jax.lax.slice_in_dim(live, j, j + 1, axis=axis)
        beats = (other > scores) | ((other == scores) & (position > j))
        beaten_by += (is_live & beats).astype(jnp.int32)
    return live & (beaten_by < n)
