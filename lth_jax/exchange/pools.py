"""A traced function whose pooling is made of slices, for converters that lack pooling."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lth_jax.structure import graph
from lth_jax.structure.graph import Op, trace

_COMBINE: dict[str, tuple[Callable[..., Any], float]] = {
    "reduce_window_max": (lax.max, -np.inf),
    "reduce_window_min": (lax.min, np.inf),
    "reduce_window_sum": (lax.add, 0.0),
}
"""Pooling primitive to the operation and its neutral element."""


def without_pools(f: Callable[[Any], Any], x: Any) -> Callable[[Any], Any]:
    """`f`, traced for inputs like `x`, with pooling as maxima or sums of strided slices.

    jax2onnx 0.17.1 converts pooling over (batch, height, width, channels) to a window of four axes,
    which onnxruntime 1.32.0 refuses ("Unsupported pooling size").

    Args:
      f: a jittable function of one array.
      x: array or `jax.ShapeDtypeStruct`, also with symbolic shapes.

    Returns:
      A function with the leaves of the outputs of `f` as a tuple, a single one alone.

    >>> from flax import linen as nn
    >>> x = jnp.arange(6.0).reshape(1, 6, 1)
    >>> without_pools(lambda x: nn.max_pool(x, (2,), (2,)), x)(x).ravel().tolist()
    [1.0, 3.0, 5.0]
    """
    block, _ = trace(f, x)

    def bind(op: Op, *ins: Any) -> Any:
        return [_pool(op, *ins)] if op.name in _COMBINE else op.bind(*ins)

    def run(x: Any) -> Any:
        results = tuple(graph.run(block, [x], bind))
        return results[0] if len(results) == 1 else results

    return run


def _pool(op: Op, x: Any) -> jax.Array:
    combine, neutral = _COMBINE[op.name]
    p = op.params
    if any(n != 1 for n in p["base_dilation"]) or not jnp.issubdtype(x.dtype, jnp.floating):
        return op.bind(x)[0]
    low_high = [(low, high, 0) for low, high in p["padding"]]
    if any(low or high for low, high, _ in low_high):
        x = lax.pad(x, np.asarray(neutral, x.dtype), low_high)
    sizes, strides = op.outs[0].shape, p["window_strides"]

    def piece(offset: tuple[int, ...]) -> Any:
        """The entries at one place of all windows."""
        start = [o * d for o, d in zip(offset, p["window_dilation"], strict=True)]
        stop = [
            n if (w, s) == (1, 1) else a + (n - 1) * s + 1
            for a, n, s, w in zip(start, sizes, strides, p["window_dimensions"], strict=True)
        ]
        return lax.slice(x, start, stop, strides)

    return functools.reduce(
        combine, map(piece, itertools.product(*map(range, p["window_dimensions"])))
    )
