"""Pytrees as named arrays on the host, and back."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.trees import TreePath, path_keys


class Leaf(NamedTuple):
    """One array of a tree, as it is written.

    Attributes:
      path: its keys from the root of the tree.
      array: the values on the host; for a typed PRNG key, its raw data; an array that is
        distributed over processes, unchanged.
      key_impl: the name of the key's implementation; None for ordinary arrays.
    """

    path: TreePath
    array: Any
    key_impl: str | None = None

    @property
    def name(self) -> str:
        """The path joined by `/`."""
        return join(self.path)


def join(path: TreePath) -> str:
    """The name of a path: its keys joined by `/`; `value` for a tree that is a single leaf.

    >>> join(("layers", 0, "kernel"))
    'layers/0/kernel'
    """
    return "/".join(map(str, path)) or "value"


def leaves(tree: Any) -> Iterator[Leaf]:
    """The leaves of a tree one by one, copied, so that donating the tree afterwards is safe.

    Those that have parts in other processes are not copied.

    Raises:
      TypeError: a leaf is not an array, a number or a typed PRNG key; the message names it.

    >>> [(leaf.name, leaf.array.shape) for leaf in leaves({"w": np.zeros((2, 3)), "b": [1.0]})]
    [('b/0', ()), ('w', (2, 3))]
    """
    for path, value in jax.tree_util.tree_leaves_with_path(tree):
        yield _leaf(path_keys(path), value)


def value(leaf: Leaf) -> np.ndarray | jax.Array:
    """The value of a leaf: its array, or the typed PRNG key made of it.

    >>> value(Leaf(("key",), np.zeros(2, np.uint32), "threefry2x32")).dtype
    key<fry>
    """
    if leaf.key_impl is None:
        return leaf.array
    return jax.random.wrap_key_data(jnp.asarray(leaf.array), impl=leaf.key_impl)


def nest(items: Sequence[tuple[TreePath, Any]]) -> Any:
    """Nested dictionaries and lists from `(path, value)` pairs.

    A level whose keys are 0, 1, … becomes a list: named tuples come back as dictionaries,
    and tuples as lists.

    >>> nest([(("a", 0), 1.0), (("a", 1), 2.0), (("b",), 3.0)])
    {'a': [1.0, 2.0], 'b': 3.0}
    """
    if len(items) == 1 and not items[0][0]:
        return items[0][1]
    groups: dict[str | int, list[tuple[TreePath, Any]]] = {}
    for path, item in items:
        groups.setdefault(path[0], []).append((path[1:], item))
    nested = {key: nest(group) for key, group in groups.items()}
    positions = range(len(nested))
    return [nested[i] for i in positions] if nested and set(nested) == set(positions) else nested


def empties(tree: Any) -> list[tuple[TreePath, Any]]:
    """The paths of empty dictionaries and sequences: they hold no leaf but belong to the tree.

    >>> empties({"state": {}, "w": 1.0})
    [(('state',), {})]
    """
    flat = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_empty)
    return [
        (path_keys(path), {} if isinstance(item, dict) else [])
        for path, item in flat
        if _is_empty(item)
    ]


def _is_empty(item: Any) -> bool:
    return isinstance(item, dict | list | tuple) and not item


def _leaf(path: TreePath, value: Any) -> Leaf:
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return Leaf(path, value)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return Leaf(path, np.array(jax.random.key_data(value)), str(jax.random.key_impl(value)))
    array = np.array(value)
    # ml_dtypes (bfloat16, int4, float8) have kind 'V' but are not structured types.
    if array.dtype.kind in "OSUMm" or array.dtype.names is not None:
        raise TypeError(f"`tree` at '{join(path)}' must be an array, got {type(value).__name__}.")
    return Leaf(path, array)
