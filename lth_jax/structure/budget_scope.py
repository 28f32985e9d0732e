"""A scope of units whose density is a share of a cost, for ladders with budgets."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.layouts import Layouts
from lth_jax.legal import MOST, check_name
from lth_jax.pruning import scores as scores_of
from lth_jax.pruning.checks import check_count, check_finite, check_fraction
from lth_jax.pruning.compiled import compiled, shared
from lth_jax.pruning.scopes import Scope
from lth_jax.structure.costs import COSTS, Terms, evaluate, terms_of
from lth_jax.structure.counts import UnitSizes, best_of_each, check_multiple, split, unit_sizes
from lth_jax.structure.groups import Structure
from lth_jax.types import Count, Info, Mask, Params, Prunable, Scores


def by_budget(structure: Structure, cost: str = "flops", *, multiple: int = 1) -> Scope:
    """A scope in which all units compete within a budget; the density is a share of a cost.

    `counts` gives the share `density` of the dense network's cost. `select` removes units,
    `multiple` of one group at a time, lowest score per saved cost first, until the network costs at
    most that; it then restores units that still fit, highest score per cost first. The scope is
    pure, so each member of a population can have its own budget and scores.

    Args:
      structure: from `find_groups`; its pruner needs `granularity(structure)` and the leaves of
        `prunable(structure)`. Scores must be comparable between groups.
      cost: `"parameters"`, `"bytes"` or `"flops"`, as `costs` defines them.
      multiple: counts are multiples of it in groups that have that many units.

    Raises:
      ValueError: `multiple` is below 1, `cost` is unknown, or the dense cost exceeds int32; from
        `counts`, the density is outside (0, 1] or below the least possible share.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2)), "c": jnp.ones((2, 1))}
    >>> apply = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
    >>> scope = by_budget(find_groups(apply, params, jnp.ones((1, 3))))
    >>> count = scope.counts(params, 0.7, prunable=True)
    >>> scores, alive = jnp.array([9.0, 8.0, 1.0, 2.0]), jnp.ones(4, bool)
    >>> scope.select(scores, alive, count, prunable=True).tolist()
    [True, False, True, True]
    """
    check_multiple(multiple)
    check_name("cost", cost, COSTS)
    terms, sizes = _in_units(terms_of(structure, structure.params, cost)), unit_sizes(structure)
    dense = evaluate(terms, {name: 0 for name, _ in sizes})
    least = evaluate(terms, {name: n - min(n, multiple) for name, n in sizes})
    if dense > MOST:
        raise ValueError(
            f"`cost` is '{cost}', of which the dense network has {dense:.3g} units, more than "
            "int32 holds; analyse it for smaller inputs."
        )

    def counts(
        params: Params, density: float, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Count:
        del params, prunable, layouts  # the structure names them
        count = int(check_fraction("density", density) * dense)
        if count < least:
            raise ValueError(
                f"`density` {density} is a share of {cost} below the least possible, "
                f"{least / dense:.4g}."
            )
        return np.int32(count)

    return Scope(counts, *_removal(sizes, terms, multiple), name=f"by_budget({cost})")


def _in_units(terms: Terms) -> Terms:
    """The terms with one constant length each, divided by the greatest common divisor."""
    moved = [sorted({axis for axis, *_ in slots}) for _, slots in terms]
    fixed = [
        math.prod(n for axis, n in enumerate(lengths) if axis not in axes)
        for (lengths, _), axes in zip(terms, moved, strict=True)
    ]
    unit = math.gcd(*fixed) or 1
    return tuple(
        (
            (n // unit, *(lengths[axis] for axis in axes)),
            tuple((1 + axes.index(axis), group, width) for axis, group, width in slots),
        )
        for (lengths, slots), axes, n in zip(terms, moved, fixed, strict=True)
    )


@shared  # equal groups share their pruners
def _removal(
    sizes: UnitSizes, terms: Terms, multiple: int
) -> tuple[Callable[..., Mask], Callable[..., Info]]:
    names = [name for name, _ in sizes]
    units = np.array([n for _, n in sizes])
    smallest, widest = np.minimum(units, multiple), int(units.max())

    def cost(kept: Any) -> Any:
        """The cost for int `[..., groups]`."""
        return evaluate(terms, {name: n - kept[..., g] for g, (name, n) in enumerate(sizes)})

    def alive(mask: jax.Array) -> jax.Array:
        return jnp.stack([m.sum() for m in split(sizes, mask).values()])

    @functools.partial(compiled, count=True)
    def program(scores: jax.Array, mask: jax.Array, count: Count) -> jax.Array:
        check_count("count", count, cost(units))
        falling = [
            -jnp.sort(jnp.where(m, -s, jnp.inf))
            for s, m in zip(split(sizes, scores).values(), split(sizes, mask).values(), strict=True)
        ]
        ranked = jnp.stack([jnp.pad(s, (0, widest - s.size)) for s in falling])

        live = alive(mask)
        live = jnp.where(live < units, jnp.maximum(live // multiple * multiple, smallest), live)

        def score_per_cost(kept: jax.Array, new: jax.Array) -> tuple[jax.Array, jax.Array]:
            """For the step of each group alone, from `kept` to `new`; and the cost after it."""
            rank, low, high = jnp.arange(widest), jnp.minimum(kept, new), jnp.maximum(kept, new)
            step = (rank >= low[:, None]) & (rank < high[:, None])
            worth = jnp.where(step, ranked, 0).sum(1)
            after = cost(jnp.where(jnp.eye(len(sizes), dtype=bool), new, kept))
            return worth / jnp.maximum(abs(cost(kept) - after), 1).astype(worth.dtype), after

        def step(kept: jax.Array, new: jax.Array, group: jax.Array) -> jax.Array:
            return jnp.where(jnp.arange(len(sizes)) == group, new, kept)

        def remove(kept: jax.Array) -> jax.Array:
            new = (kept - 1) // multiple * multiple
            price, _ = score_per_cost(kept, new)
            return step(kept, new, jnp.where(new >= smallest, price, jnp.inf).argmin())

        def too_large(kept: jax.Array) -> jax.Array:
            return (cost(kept) > count) & (kept > smallest).any()

        def restore(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            kept, _ = state
            new = jnp.minimum((kept // multiple + 1) * multiple, live)
            price, after = score_per_cost(kept, new)
            fits = (new > kept) & (after <= count)
            group = jnp.where(fits, price, -jnp.inf).argmax()
            return jnp.where(fits.any(), step(kept, new, group), kept), fits.any()

        fitting = jax.lax.while_loop(too_large, remove, live)
        kept, _ = jax.lax.while_loop(lambda state: state[1], restore, (fitting, jnp.array(True)))
        return best_of_each(sizes, scores, mask, dict(zip(names, kept, strict=True)))

    def select(scores: Scores, mask: Mask, count: Count, **of_leaves: Any) -> Mask:
        del of_leaves
        parts = split(sizes, scores), split(sizes, mask)
        check_finite(*parts, dict.fromkeys(names, True))
        return program(scores, mask, count)

    def inspect(scores: Scores, mask: Mask, count: Count, **of_leaves: Any) -> Info:
        del of_leaves
        some = jnp.asarray(cost(alive(mask)) > count, jnp.int32)
        return scores_of.inspect(scores, mask, some, prunable=True)

    return select, inspect
