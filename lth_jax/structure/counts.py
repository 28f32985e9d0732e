"""Counts and scopes of units: per group or over all groups, in multiples, at least one.

Both scopes take a density of *weights*, like every scope, so that structured and unstructured
ladders have the same densities. A weight between two groups is kept only if both units are kept:
halving the units on both sides of a layer keeps a quarter of its weights.
"""

import bisect
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.layouts import Layouts
from lth_jax.pruning import scores as scores_of
from lth_jax.pruning.checks import check_count, check_finite
from lth_jax.pruning.compiled import compiled, shared
from lth_jax.pruning.scopes import Scope, globally, layerwise
from lth_jax.structure.costs import Terms, evaluate, of_leaves
from lth_jax.structure.groups import Structure
from lth_jax.structure.units import prunable as prunable_leaves
from lth_jax.types import Count, Info, Mask, Params, Prunable, Scores

UnitCounts = Mapping[str, Any]
"""Group name → number of kept units; may be traced."""


def kept_weights(structure: Structure, counts: UnitCounts, prunable: Prunable) -> Any:
    """The number of prunable weights that are kept for given numbers of kept units.

    `Σ_leaves Π_axes (length − indices of removed units)`, independent of which units are removed.

    Args:
      structure: from `find_groups`.
      counts: group name → count, on the host or traced; absent groups are kept whole.
      prunable: which leaves count.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((4, 1)), "w": jnp.ones((3, 4))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> kept_weights(found, {"v:0": 2}, {"v": True, "w": True})
    8
    """
    gone = {g.name: g.units - counts.get(g.name, g.units) for g in structure.groups}
    return evaluate(_counted(structure, prunable), gone)


def _counted(structure: Structure, prunable: Prunable) -> Terms:
    """The number of kept prunable weights."""
    return of_leaves(structure, {name: 1 for name, use in trees.to_named(prunable).items() if use})


def unit_counts(
    structure: Structure, fraction: float | Mapping[str, float], *, multiple: int = 1
) -> dict[str, np.int32]:
    """The number of units that each group keeps (host), rounded to a multiple, at least one.

    `multiple · max(1, round(fraction · units / multiple))`, at most `units`.

    Args:
      structure: from `find_groups`.
      fraction: fraction of units in (0, 1]: one for all groups, or a mapping by name (absent groups
        are kept whole).
      multiple: a multiple that suits the hardware, such as 8, 16, 128.

    Raises:
      ValueError: a fraction or the multiple is out of range, or a name is not that of a group.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((20, 1)), "w": jnp.ones((3, 20))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> {k: int(n) for k, n in unit_counts(found, 0.3, multiple=8).items()}
    {'v:0': 8}
    """
    check_multiple(multiple)
    names = [group.name for group in structure.groups]
    each = fraction if isinstance(fraction, Mapping) else dict.fromkeys(names, fraction)
    for name, value in each.items():
        if name not in names:
            raise ValueError(f"`fraction` names '{name}', which is not a group; there are {names}.")
        if not 0 < value <= 1:
            raise ValueError(f"`fraction` at '{name}' must be in (0, 1], but it is {value}.")
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
      measure: increasing function of n.
      limit: upper bound of the measure.
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
    """A scope in which the units of each group compete with each other.

    `counts` gives each group the same fraction of its units, the largest that keeps no more than
    the density of the weights. A mapping of group names to fractions of units is used directly.

    Args:
      structure: from `find_groups`; its pruner needs `granularity(structure)`.
      multiple: counts are multiples of it in groups that have that many units.

    Raises:
      ValueError: `multiple` is below 1; from `counts`, the density is outside (0, 1].

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((8, 1)), "w": jnp.ones((3, 8))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> counts = by_group(found).counts(params, 0.6, prunable={"v": True, "w": True})
    >>> {name: int(n) for name, n in counts.items()}
    {'v:0': 4}
    """
    check_multiple(multiple)
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

    select, inspect = _each_group(unit_sizes(structure))
    return Scope(counts, select, inspect, "by_group(...)")


UnitSizes = tuple[tuple[str, int], ...]
"""The name and the number of units of each group."""


def unit_sizes(structure: Structure) -> UnitSizes:
    """The name and the number of units of each group."""
    return tuple((group.name, group.units) for group in structure.groups)


@shared  # equal groups share their pruners
def _each_group(units: UnitSizes) -> tuple[Callable[..., Mask], Callable[..., Info]]:
    def select(scores: Scores, mask: Mask, count: Count, **of_leaves: Any) -> Mask:
        del of_leaves
        return best_of_each(units, scores, mask, count)

    def inspect(scores: Scores, mask: Mask, count: Count, **of_leaves: Any) -> Info:
        del of_leaves
        parts = split(units, scores), split(units, mask)
        return scores_of.inspect(*parts, dict(count), prunable={name: True for name, _ in units})

    return select, inspect


def across_groups(structure: Structure, *, multiple: int = 1) -> Scope:
    """A scope in which all units compete.

    `select` ranks all live units and keeps as many of the best as hold no more than `count`
    weights, after rounding each group's number to the multiple. Each group keeps at least one
    multiple.

    Args:
      structure: from `find_groups`; its pruner needs `granularity(structure)` and the leaves of
        `prunable(structure)`. Scores must be comparable between groups.
      multiple: counts are multiples of it in groups that have that many units.

    Raises:
      ValueError: `multiple` is below 1; from `counts`, the density is outside (0, 1].

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2)), "c": jnp.ones((2, 1))}
    >>> apply = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
    >>> scope = across_groups(find_groups(apply, params, jnp.ones((1, 3))))
    >>> scores, alive = jnp.array([9.0, 8.0, 1.0, 2.0]), jnp.ones(4, bool)
    >>> scope.select(scores, alive, 9, prunable=True).tolist()
    [True, True, False, True]
    """
    check_multiple(multiple)
    terms = _counted(structure, prunable_leaves(structure))
    select = _all_unit_sizes(unit_sizes(structure), terms, multiple)
    return Scope(globally().counts, select, name="across_groups(...)")


@shared
def _all_unit_sizes(units: UnitSizes, terms: Terms, multiple: int) -> Callable[..., Mask]:
    def left(kept: UnitCounts) -> Any:
        return evaluate(terms, {name: number - kept[name] for name, number in units})

    @functools.partial(compiled, count=True)
    def program(scores: Scores, mask: Mask, count: Count) -> Mask:
        check_count("count", count, left(dict(units)))
        best_first = jnp.argsort(jnp.where(mask, -scores, jnp.inf))
        rank = jnp.argsort(best_first)

        def kept(amount: Any) -> dict[str, jax.Array]:
            chosen = split(units, rank < amount)
            return {name: rounded(c.sum(), multiple, c.size) for name, c in chosen.items()}

        amount = most_within(lambda n: left(kept(n)), count, scores.shape[-1])
        return best_of_each(units, scores, mask, kept(amount))

    def select(scores: Scores, mask: Mask, count: Count, **of_leaves: Any) -> Mask:
        del of_leaves
        every = {name: True for name, _ in units}
        check_finite(split(units, scores), split(units, mask), every)
        return program(scores, mask, count)

    return select


def split(units: UnitSizes, values: jax.Array) -> dict[str, jax.Array]:
    """Splits a vector over all units into one array per group, by name."""
    ends = np.cumsum([number for _, number in units])[:-1]
    return dict(zip((name for name, _ in units), jnp.split(values, ends), strict=True))


def best_of_each(
    units: UnitSizes, scores: jax.Array, mask: jax.Array, counts: UnitCounts
) -> jax.Array:
    """The best live units of each group, as a vector over all units; ties by position."""
    every = {name: True for name, _ in units}
    kept = layerwise().select(
        split(units, scores), split(units, mask), dict(counts), prunable=every
    )
    return jnp.concatenate([kept[name] for name in every])


def check_multiple(multiple: int) -> None:
    """Raises `ValueError` for a multiple below 1."""
    if multiple < 1:
        raise ValueError(f"`multiple` must be at least 1, but it is {multiple}.")
