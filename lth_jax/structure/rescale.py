"""The initialisation of a wide network as that of the small network inside it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.types import Mask, Params, Prunable

Fan = Callable[[str, Sequence[Any]], Any]
"""A leaf's name and the sizes of its axes, which may be traced -> what its initial variance is
inverse to."""


def fan_in(name: str, sizes: Sequence[Any]) -> Any:
    """The inputs of each output: for LeCun's, He's and PyTorch's initialisations.

    Args:
      name: of the leaf; all count as kernels.
      sizes: of a kernel `(..., inputs, outputs)`, as `jax.nn.initializers` read it.

    >>> fan_in("kernel", (3, 3, 8, 16))
    72
    """
    del name
    return math.prod(sizes[:-1])


def fan_average(name: str, sizes: Sequence[Any]) -> Any:
    """The mean of inputs of each output and outputs of each input: for Glorot's initialisation.

    Args:
      name: as in `fan_in`.
      sizes: as in `fan_in`.

    >>> fan_average("kernel", (8, 16))
    12.0
    """
    del name
    return math.prod(sizes[:-2]) * (sizes[-2] + sizes[-1]) / 2


def rescale(params: Params, mask: Mask, prunable: Prunable, fan: Fan) -> Params:
    """Newly drawn parameters with the deviations that they would have in the network that is left.

    A leaf drawn with variance c / fan(wide sizes) is multiplied by √(fan(wide) / fan(kept)), so
    that what the mask keeps of it has variance c / fan(kept sizes). Biases stay as they were drawn.

    Args:
      params: at their initialisation.
      mask: of whole units: a kernel keeps all of some indices of each axis.
      prunable: which leaves are masked; those of fewer than two axes stay.
      fan: `fan_in`, `fan_average`, or any function of a leaf's name and sizes; 1 for leaves that
        are drawn alike at every size.

    >>> params, half = {"w": jnp.ones((4, 2))}, {"w": jnp.array([[1, 1], [0, 0]] * 2, bool)}
    >>> rescale(params, half, {"w": True}, fan_in)["w"][0].round(3).tolist()
    [1.4140000343322754, 1.4140000343322754]
    """

    def leaf(name: str, p: jax.Array, m: jax.Array, use: bool) -> jax.Array:
        if not use or p.ndim < 2:
            return p
        others = [tuple(a for a in range(m.ndim) if a != axis) for axis in range(m.ndim)]
        kept = [jnp.any(m, axis=axes).sum().astype(p.dtype) for axes in others]
        return p * jnp.sqrt(np.asarray(fan(name, p.shape), p.dtype) / fan(name, kept))

    return trees.map_named(leaf, params, mask, prunable)
