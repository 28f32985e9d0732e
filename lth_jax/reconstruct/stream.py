"""The inputs of one layer after the other, from calibration batches."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.landscape.numerics import full_precision
from lth_jax.reconstruct.layers import Layer, Layers, find_layers
from lth_jax.reconstruct.methods.method import work_dtype
from lth_jax.reconstruct.views import View
from lth_jax.reconstruct.walk import Site, Walk, walk
from lth_jax.types import Params


def check_batches(params: Params, batches: Any) -> list[Any]:
    """The batches as a list.

    Raises:
      ValueError: no parameters or no batches.
      TypeError: `batches` is not a list.
    """
    if not jax.tree.leaves(params):
        raise ValueError("`params` has no leaves; give a tree of arrays.")
    if not isinstance(batches, list | tuple):
        raise TypeError(
            f"`batches` must be a list of inputs, but is a {type(batches).__name__}; one batch is "
            "`[batch]`."
        )
    if not batches:
        raise ValueError("`batches` is empty; give at least one batch of inputs.")
    return list(batches)


@contextlib.contextmanager
def _pairs_named(batch: Any) -> Iterator[None]:
    """Raises `TypeError` with a hint if `f` fails on a pair of arrays (inputs and targets)."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        is_pair = isinstance(batch, tuple | list) and len(batch) == 2
        if not (is_pair and all(hasattr(part, "shape") for part in batch)):
            raise
        raise TypeError(
            "`batches` must hold inputs, as `f` takes them, but holds pairs, on which `f` fails "
            f"({str(error)[:80]}); without targets they are `[x for x, _ in batches]`."
        ) from error


class Stream:
    """All batches, which advance together from layer to layer.

    Memory holds one layer's Gram matrix, the rows of one batch, and those activations of every
    batch that later operations read.
    """

    def __init__(self, f: Callable[..., Any], params: Params, batches: Sequence[Any]):
        self.leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
        self._batches = batches
        found: dict[Any, Layers] = {}
        self.programs: list[Layers] = []
        for batch in batches:
            kind = jax.tree.structure(batch), tuple(map(jax.typeof, jax.tree.leaves(batch)))
            if kind not in found:
                with _pairs_named(batch):
                    found[kind] = find_layers(f, params, batch)
            self.programs.append(found[kind])
        _check_same_layers(self.programs)
        self._restart()

    def gram(self, layer: Layer) -> tuple[jax.Array, int, jax.Array]:
        """`XᵀX`, summed over all batches and sites, and the number of its rows.

        Call it for layers in the order of `find_layers`.

        Returns:
          `(gram, rows, filled)`: `(groups, inputs, inputs)`; the rows of X; and int32 `(groups,)`,
          how many of them are not all 0. An expert gets zeros for examples of other experts.
        """
        dtype = work_dtype(self.leaves[layer.leaf].dtype)
        total = jnp.zeros((layer.groups, layer.inputs, layer.inputs), dtype)
        number, filled = 0, jnp.zeros(layer.groups, jnp.int32)
        for k, program in enumerate(self.programs):
            left = program.order.count(layer.key)
            while left:
                event = next(self._walks[k])
                if not isinstance(event, Site):
                    continue
                if program.order[self._passed[k]] == layer.key:
                    rows = event.product.rows(event.operands)
                    total, filled = _add_gram(total, filled, rows)
                    number += rows.shape[1]
                    left -= 1
                self._passed[k] += 1
        return total, number, filled

    def proceed(self, layer: Layer, leaf: jax.Array | None = None) -> None:
        """Continues after the last layer, with another leaf if one is given."""
        if leaf is not None:
            self.leaves[layer.leaf] = leaf
        if any(program.order.count(layer.key) > 1 for program in self.programs):
            self._restart()  # values after its first product were computed with the old weights

    def _restart(self) -> None:
        self._passed = [0] * len(self._batches)
        self._walks = [
            self._start(program, batch)
            for program, batch in zip(self.programs, self._batches, strict=True)
        ]

    def _start(self, program: Layers, batch: Any) -> Walk:
        views = [View(k) for k in range(len(self.leaves))]
        data = [jnp.asarray(x) for x in jax.tree.leaves(batch)]
        return walk(program.block, [*views, *data], self.leaves)


def _check_same_layers(programs: Sequence[Layers]) -> None:
    """Raises `ValueError` unless batches of all shapes enter the same layers."""
    first = {layer.key: layer for layer in programs[0]}
    for k, program in enumerate(programs):
        layers = {layer.key: layer for layer in program}
        for key in first.keys() ^ layers.keys():
            name = (layers | first)[key].name
            there = "first" if key in first else f"number {k}"
            raise ValueError(
                f"`batches` of different shapes enter different layers: '{name}' is a layer for "
                f"the batch {there}, but not for all; give batches of one shape."
            )


@jax.jit
def _add_gram(total: jax.Array, filled: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    filled = filled + jnp.any(rows != 0, axis=2).sum(axis=1, dtype=jnp.int32)
    rows = rows.astype(total.dtype)
    with full_precision():
        return total + jnp.einsum("gri,grj->gij", rows, rows), filled


def grams(
    f: Callable[[Params, Any], Any], params: Params, batches: Sequence[Any]
) -> Iterator[tuple[Layer, jax.Array, int]]:
    """The Gram matrix of the inputs of every layer of `f(params, batch)`, one after the other.

    Args:
      f: a jittable function of the parameters and one batch of inputs.
      params: tree of arrays.
      batches: a list of inputs.

    Yields:
      `(layer, gram, rows)`: `XᵀX`, `(groups, inputs, inputs)` in float32 (float64 for weights in
      float64) at full precision, and the number of rows of X.

    Raises:
      ValueError: no batches, or batches of different shapes that enter different layers.
      TypeError: `batches` is not a list.

    >>> f = lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"]
    >>> params = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((3, 1))}
    >>> for layer, gram, rows in grams(f, params, [jnp.ones((4, 2))]):
    ...     print(layer.name, gram.tolist(), rows)
    a [[[4.0, 4.0], [4.0, 4.0]]] 4
    b [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]] 4
    """
    stream = Stream(f, params, batches)
    for layer in stream.programs[0]:
        gram, rows, _ = stream.gram(layer)
        yield layer, gram, rows
        stream.proceed(layer)
