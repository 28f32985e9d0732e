"""Views of a leaf: the moves of its entries before a product reads it, which change no value."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.structure.graph import Op

# Primitives whose results hold entries of their first operand, elsewhere or several times.
_MOVES = frozenset(
    "broadcast_in_dim dynamic_slice reshape rev slice split squeeze transpose".split()
)
# Those that keep every entry where it is; the dtype may change between floating-point types.
_STILL = frozenset(
    "convert_element_type copy layout_constraint optimization_barrier reduce_precision "
    "sharding_constraint".split()
)


class View(NamedTuple):
    """A value that holds entries of one leaf and nothing else.

    Attributes:
      leaf: the position of the leaf among the leaves of the parameters.
      steps: the moves from the leaf to the value, each with whether it keeps all entries in place.
    """

    leaf: int
    steps: tuple[tuple[bool, Callable[[Any], Any]], ...] = ()

    def then(self, step: Callable[[Any], Any], *, still: bool = False) -> "View":
        """The view after one more move."""
        return View(self.leaf, (*self.steps, (still, step)))

    def read(self, leaf: Any) -> Any:
        """The value, from the leaf."""
        for _, step in self.steps:
            leaf = step(leaf)
        return leaf

    def places(self, shape: Sequence[int]) -> np.ndarray:
        """For each entry of the value, the flat position in a leaf of this shape (int32)."""
        with jax.ensure_compile_time_eval():
            moved = jnp.arange(np.prod(shape, dtype=int), dtype=jnp.int32).reshape(shape)
            for still, step in self.steps:
                moved = moved if still else step(moved)
            return np.asarray(moved)


def follow(op: Op, operands: Sequence[Any]) -> list[View] | None:
    """The results of an operation on a view as views; None if it does more than move entries."""
    first, *rest = operands
    still = op.name in _STILL
    is_static = all(isinstance(x, np.ndarray) for x in rest)
    if not isinstance(first, View) or not is_static or not (still or op.name in _MOVES):
        return None
    if still and (rest or not all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in op.outs)):
        return None
    return [first.then(partial(_run, op, tuple(rest), k), still=still) for k in range(len(op.outs))]


def _run(op: Op, rest: tuple[Any, ...], result: int, array: Any) -> Any:
    return op.bind(array, *rest)[result]
