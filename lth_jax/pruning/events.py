"""Conditional work in a training step that costs nothing at other steps, also under vmap."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees


def when(condition: jax.Array, event: Callable[..., Any], state: Any, *operands: Any) -> Any:
    """`event(state, *operands)` where `condition` holds, else `state`.

    Under `jax.vmap` a `lax.cond` with a batched condition computes both branches for every member
    at every step. Here the event runs, for all members, only when some member's condition holds.

    Args:
      condition: boolean scalar.
      event: pure function that returns a tree like `state`; it must not close over batched values.
      state: tree of arrays.
      *operands: further arguments of the event.

    >>> double = lambda x, by: x * by
    >>> f = jax.vmap(lambda c, x: when(c, double, x, 2))
    >>> f(jnp.array([True, False]), jnp.array([1, 1])).tolist()
    [2, 1]
    """
    run, member = _conditional(event)

    @run.def_vmap
    def run_members(
        axis_size: int, batched: Any, conditions: Any, states: Any, all_operands: Any
    ) -> tuple[Any, Any]:
        def every(tree: Any, tree_batched: Any) -> Any:
            return jax.tree.map(
                lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *x.shape)),
                tree,
                tree_batched,
            )

        conditions, states = every(conditions, batched[0]), every(states, batched[1])
        axes = jax.tree.map(lambda b: 0 if b else None, batched[2])

        def members(states: Any, conditions: Any, operands: Any) -> Any:
            return jax.vmap(member, in_axes=(0, 0, axes))(conditions, states, operands)

        new = when(jnp.any(conditions), members, states, conditions, all_operands)
        return new, jax.tree.map(lambda _: True, states)

    return run(condition, state, operands)


def guarded(condition: jax.Array, event: Callable[..., Any], state: Any, *operands: Any) -> Any:
    """`event(state, *operands)` where `condition` holds, else `state`.

    For conditions that hold at almost every step: a `lax.cond`, and under `jax.vmap` a select. A
    select alone makes XLA:CPU (jaxlib 0.10.2) compute a moment of Adam twice, once for the new
    state and once for the update.

    Args:
      condition: boolean scalar.
      event: pure function that returns a tree like `state`; it must not close over batched values.
      state: tree of arrays.
      *operands: further arguments of the event.

    >>> f = jax.vmap(lambda c, x: guarded(c, lambda x, by: x * by, x, 2))
    >>> f(jnp.array([True, False]), jnp.array([1, 1])).tolist()
    [2, 1]
    """
    run, member = _conditional(event)

    @run.def_vmap
    def run_members(axis_size: int, batched: Any, *given: Any) -> tuple[Any, Any]:
        del axis_size
        axes = tuple(jax.tree.map(lambda b: 0 if b else None, part) for part in batched)
        new = jax.vmap(member, in_axes=axes)(*given)
        return new, jax.tree.map(lambda _: True, new)

    return run(condition, state, operands)


def _conditional(
    event: Callable[..., Any],
) -> tuple[jax.custom_batching.custom_vmap, Callable[..., Any]]:
    """`(condition, state, operands) -> state`, as a condition and as a select."""

    @jax.custom_batching.custom_vmap
    def run(condition: jax.Array, state: Any, operands: Any) -> Any:
        return jax.lax.cond(condition, lambda s, o: event(s, *o), lambda s, o: s, state, operands)

    def selected(condition: jax.Array, state: Any, operands: Any) -> Any:
        return trees.where(condition, event(state, *operands), state)

    return run, selected
