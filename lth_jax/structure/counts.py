"""How many units each group keeps: per group or over all, in multiples, and never none.

Both scopes take a density of *weights*, as every scope does, so that a ladder of units and a
ladder of weights meet at the same densities. A weight between two groups is kept only if both its
units are, so halving the units of a layer's two sides leaves a quarter of its weights.
"""

import bisect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.layouts import Layouts
from lth_jax.pruning import scores as scores_of
from lth_jax.pruning.checks import check_count
from lth_jax.pruning.scopes import Scope, globally, layerwise
from lth_jax.structure.groups import Structure
from lth_jax.structure.units import prunable as prunable_leaves
from lth_jax.types import Count, Info, Mask, Params, Prunable, Scores

UnitCounts = Mapping[str, Any]
"""For each group by name, how many units it keeps; possibly traced."""


def kept_weights(structure: Structure, counts: UnitCounts, prunable: Prunable) -> Any:
    """How many prunable weights are left when each group keeps so many units.

    `Σ_leaves Π_axes (length − indices of units that go)`, whichever units these are.

    Args:
      structure: from `find_groups`.
      counts: for each group by name, on the host or traced; absent groups are kept whole.
      prunable: which leaves count.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((4, 1)), "w": jnp.ones((3, 4))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> kept_weights(found, {"v:0": 2}, {"v": True, "w": True})
    8
    """
    left: dict[str, list[Any]] = {name: list(shape) for name, shape in structure.shapes.items()}
    for group in structure.groups:
        gone = group.units - counts.get(group.name, group.units)
        for slot in group.slots:
            left[slot.leaf][slot.axis] = left[slot.leaf][slot.axis] - gone * slot.indices.shape[1]
    chosen = trees.to_named(prunable)
    return sum(math.prod(sizes) for name, sizes in left.items() if chosen[name])


def unit_counts(
    structure: Structure, fraction: float | Mapping[str, float], *, multiple: int = 1
) -> dict[str, np.int32]:
    """How many units each group keeps, on the host: rounded to a multiple, never none.

    `multiple · max(1, round(fraction · units / multiple))`, and never more than there are.

    Args:
      structure: from `find_groups`.
      fraction: of the units, in (0, 1]: one for all groups or one for each by name (absent groups
        are kept whole).
      multiple: what hardware likes: 8, 16, 128.

    Raises:
      ValueError: if a fraction or the multiple is out of range, or a name is no group's.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((20, 1)), "w": jnp.ones((3, 20))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> {k: int(n) for k, n in unit_counts(found, 0.3, multiple=8).items()}
    {'v:0': 8}
    """
    _check_multiple(multiple)
    names = [group.name for group in structure.groups]
    each = fraction if isinstance(fraction, Mapping) else dict.fromkeys(names, fraction)
    for name, value in each.items():
        if name not in names:
            raise ValueError(f"`fraction` names '{name}', which is no group; there are {names}")
        if not 0 < value <= 1:
            raise ValueError(f"`fraction` at '{name}' must be in (0, 1], but it is {value}")
    return {
        group.name: np.int32(
            rounded(each.get(group.name, 1.0) * group.units, multiple, group.units)
        )
        for group in structure.groups
    }


def rounded(amount: Any, multiple: int, units: int) -> Any:
    """The multiple nearest to `amount` (half goes up), at least one multiple, at most `units`.

    >>> rounded(11.9, 8, 20).item()
    8
    """
    whole = jnp.floor(jnp.asarray(amount, jnp.float32) / multiple + 0.5).astype(jnp.int32)
    return jnp.clip(whole * multiple, min(multiple, units), units)


def most_within(measure: Callable[[Any], Any], limit: Any, top: int) -> jax.Array:
    """The largest whole number in [0, top] with `measure(n) ≤ limit`; 0 if there is none.

    Pure: `limit` may be traced.

    Args:
      measure: grows with n.
      limit: what the measure may reach.
      top: static.

    >>> most_within(lambda n: n * n, 30, 9).item()
    5
    """

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high + 1) // 2
        fits = measure(middle) <= limit
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle - 1)

    ends = jnp.int32(0), jnp.int32(top)
    return jax.lax.fori_loop(0, top.bit_length(), halve, ends)[0]


def by_group(structure: Structure, *, multiple: int = 1) -> Scope:
    """A scope in which the units of each group compete among themselves.

    `counts` gives each group the same fraction of its units, the largest that keeps no more than
    the density of the weights; a mapping of group names to fractions of units is taken as it is.

    Args:
      structure: from `find_groups`; its pruner needs `granularity(structure)`.
      multiple: what counts are multiples of, wherever a group has that many units.

    Raises:
      ValueError: if `multiple` is below 1; from `counts`, for a density outside (0, 1].

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((8, 1)), "w": jnp.ones((3, 8))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> counts = by_group(found).counts(params, 0.6, prunable={"v": True, "w": True})
    >>> {name: int(n) for name, n in counts.items()}
    {'v:0': 4}
    """
    _check_multiple(multiple)
    steps = 4 * sum(group.units for group in structure.groups)

    def counts(
        params: Params, density: Any, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Count:
        del layouts  # the groups name the axes
        if isinstance(density, Mapping):
            return unit_counts(structure, density, multiple=multiple)
        wanted = globally().counts(params, density, prunable=prunable)

        def weights(step: int) -> int:
            kept = unit_counts(structure, max(step, 1) / steps, multiple=multiple)
            return kept_weights(structure, kept, prunable)

        best = max(1, bisect.bisect_right(range(steps + 1), wanted, key=weights) - 1)
        return unit_counts(structure, best / steps, multiple=multiple)

    def select(scores: Scores, mask: Mask, count: Count, **of_leaves: Any) -> Mask:
        del of_leaves
        return _best_of_each(structure, scores, mask, count)

    def inspect(scores: Scores, mask: Mask, count: Count, **of_leaves: Any) -> Info:
        del of_leaves
        every = {group.name: True for group in structure.groups}
        parts = split(structure, scores), split(structure, mask)
        return scores_of.inspect(*parts, dict(count), prunable=every)

    return Scope(counts, select, inspect)


def across_groups(structure: Structure, *, multiple: int = 1) -> Scope:
    """A scope in which all units compete.

    `select` ranks all live units and takes as many of the best as keep no more than `count`
    weights, after each group's number is rounded to the multiple. No group is emptied: at the
    least it keeps one multiple.

    Args:
      structure: from `find_groups`; its pruner needs `granularity(structure)` and the leaves of
        `prunable(structure)`. Scores must be comparable between groups.
      multiple: what counts are multiples of, wherever a group has that many units.

    Raises:
      ValueError: if `multiple` is below 1; from `counts`, for a density outside (0, 1].

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2)), "c": jnp.ones((2, 1))}
    >>> apply = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
    >>> scope = across_groups(find_groups(apply, params, jnp.ones((1, 3))))
    >>> scores, alive = jnp.array([9.0, 8.0, 1.0, 2.0]), jnp.ones(4, bool)
    >>> scope.select(scores, alive, 9, prunable=True).tolist()
    [True, True, False, True]
    """
    _check_multiple(multiple)
    leaves = prunable_leaves(structure)

    def select(scores: Scores, mask: Mask, count: Count, **of_leaves: Any) -> Mask:
        del of_leaves
        check_count("count", count, kept_weights(structure, {}, leaves))
        best_first = jnp.argsort(jnp.where(mask, -scores, jnp.inf))
        rank = jnp.argsort(best_first)

        def kept(amount: Any) -> dict[str, jax.Array]:
            chosen = split(structure, rank < amount)
            return {name: rounded(c.sum(), multiple, c.size) for name, c in chosen.items()}

        amount = most_within(
            lambda n: kept_weights(structure, kept(n), leaves), count, scores.shape[-1]
        )
        return _best_of_each(structure, scores, mask, kept(amount))

    return Scope(globally().counts, select)


def split(structure: Structure, units: jax.Array) -> dict[str, jax.Array]:
    """A vector over all units, group after group, as one array for each group by name."""
    ends = np.cumsum([group.units for group in structure.groups])[:-1]
    names = [group.name for group in structure.groups]
    return dict(zip(names, jnp.split(units, ends), strict=True))


def _best_of_each(
    structure: Structure, scores: jax.Array, mask: jax.Array, counts: UnitCounts
) -> jax.Array:
    """The best live units of each group, as a vector over all units; ties go to the earlier."""
    every = {group.name: True for group in structure.groups}
    kept = layerwise().select(
        split(structure, scores), split(structure, mask), dict(counts), prunable=every
    )
    return jnp.concatenate([kept[name] for name in every])


def _check_multiple(multiple: int) -> None:
    if multiple < 1:
        raise ValueError(f"`multiple` must be at least 1, but it is {multiple}")
