"""Rescales the initialisation of a wide network to that of a smaller one inside it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.layouts import Layout, Layouts, require, resolve
from lth_jax.models import layers
from lth_jax.types import Mask, Params, Prunable

Fan = Callable[[str, Layout, Sequence[Any]], Any]
"""`(name, layout, sizes) -> fan` of a leaf, whose initial variance is inversely proportional to its
fan; the sizes of its axes may be traced."""


def fan_in(name: str, layout: Layout, sizes: Sequence[Any]) -> Any:
    """The inputs of each output: for LeCun's, He's and PyTorch's initialisations.

    Args:
      name: name of the leaf; ignored.
      layout: the meaning of its axes.
      sizes: sizes of its axes.

    >>> from lth_jax.layouts import conv
    >>> fan_in("kernel", conv(2), (3, 3, 8, 16))
    72
    """
    del name
    return _product(sizes, (*layout.window, *layout.inputs))


def fan_average(name: str, layout: Layout, sizes: Sequence[Any]) -> Any:
    """The mean of inputs of each output and outputs of each input: for Glorot's initialisation.

    Args:
      name: as in `fan_in`.
      layout: as in `fan_in`.
      sizes: as in `fan_in`.

    >>> from lth_jax.layouts import DENSE
    >>> fan_average("kernel", DENSE, (8, 16))
    12.0
    """
    del name
    ends = _product(sizes, layout.inputs) + _product(sizes, layout.outputs)
    return _product(sizes, layout.window) * ends / 2


def _product(sizes: Sequence[Any], axes: Sequence[int]) -> Any:
    return math.prod(sizes[axis] for axis in axes)


SIZE_INDEPENDENT = ("class_token", "embeddings", "pos_embedding", "position_embedding", "positions")
"""Leaves whose initial variance does not depend on the size; `embeddings` is Haiku's name."""
FANS: dict[layers.Initialization, Fan] = {
    layers.glorot_normal: fan_average,
    layers.he_normal: fan_in,
    layers.fan_in_uniform: fan_in,
}


def fan_of(module: Any) -> Fan:
    """The `Fan` of a network's initialisers, by its attribute `initialization`.

    Without this attribute, in any framework, the fan of a kernel is its fan-in, as in the default
    initialisers of Flax, Equinox and Haiku.

    Args:
      module: a network of any framework. `initialization` is one of the initialisers in
        `lth_jax.models.layers`; another value counts as absent.

    Returns:
      A `Fan`: the fan of kernels; for an `embedding` the size of its last axis; 1 for leaves whose
      variance does not depend on the size, such as position embeddings.

    Raises:
      TypeError: `initialization` is not hashable.

    >>> from lth_jax.layouts import DENSE
    >>> fan_of(None)("kernel", DENSE, (8, 16))
    8
    """
    of_kernels = FANS.get(getattr(module, "initialization", None), fan_in)  # type: ignore[arg-type]

    def fan(name: str, layout: Layout, sizes: Sequence[Any]) -> Any:
        leaf = name.rpartition("/")[2]
        if leaf in SIZE_INDEPENDENT:
            return 1
        return sizes[-1] if leaf == "embedding" else of_kernels(name, layout, sizes)

    return fan


def rescale(
    params: Params, mask: Mask, prunable: Prunable, fan: Fan, *, layouts: Layouts | None = None
) -> Params:
    """Rescales newly drawn parameters to the standard deviations of the smaller network.

    A leaf drawn with variance c / fan(wide sizes) is multiplied by √(fan(wide) / fan(kept)), so
    that its kept part has variance c / fan(kept sizes). Biases and scales, which are leaves without
    a layout with at most one axis longer than 1, are unchanged.

    Args:
      params: newly drawn parameters.
      mask: a mask of whole units.
      prunable: which leaves are masked.
      fan: `fan_in`, `fan_average`, or any function of a leaf's name, layout and sizes; 1 for leaves
        whose variance does not depend on the size.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`).

    Raises:
      ValueError: a masked leaf with two axes longer than 1 has no layout.

    >>> params, half = {"w": jnp.ones((4, 2))}, {"w": jnp.array([[1, 1], [0, 0]] * 2, bool)}
    >>> rescale(params, half, {"w": True}, fan_in)["w"][0].round(3).tolist()
    [1.4140000343322754, 1.4140000343322754]
    """
    known = resolve(params, layouts)

    def leaf(name: str, p: jax.Array, m: jax.Array, use: bool) -> jax.Array:
        if not use or (name not in known and sum(size > 1 for size in p.shape) < 2):
            return p  # Haiku's BatchNorm has scales of shape (1, ..., features)
        others = [tuple(a for a in range(m.ndim) if a != axis) for axis in range(m.ndim)]
        kept = [jnp.any(m, axis=axes).sum().astype(p.dtype) for axes in others]
        layout = require(known, name, p.shape, "`rescale`")
        wide = np.asarray(fan(name, layout, p.shape), p.dtype)
        return p * jnp.sqrt(wide / fan(name, layout, kept))

    return trees.map_named(leaf, params, mask, prunable)
