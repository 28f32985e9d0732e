"""Layouts: the axes of a kernel for inputs, outputs, window, heads and stacked layers.

The shape of a kernel does not show what its axes mean: `(32, 4, 8)` is a one-dimensional
convolution in Flax, the query projection of an attention layer, or a stack of 32 dense layers. A
layout states the meaning. Granularities, layerwise scopes, criteria and initializers that depend on
it take a mapping from leaf names (`trees.names`) to layouts.

`of_linen`, `of_nnx`, `of_equinox`, `of_haiku` and `of_keras` read layouts off the types of the
layers. All take a network (for Haiku, its `init`) and example inputs, which may be omitted for NNX,
Equinox and Keras, whose networks hold their arrays. `by_name` takes layouts from the user. Without
a layout, `resolve` determines only leaves whose name and number of axes are unambiguous. For other
leaves, functions that need a layout raise an error.
"""

from lth_jax.layouts.keras import of_keras
from lth_jax.layouts.layout import (
    DENSE,
    Layout,
    Layouts,
    by_name,
    conv,
    from_layers,
    map_layers,
    require,
    resolve,
    to_layers,
)
from lth_jax.layouts.modules import (
    of_equinox,
    of_haiku,
    of_linen,
    of_linen_init,
    of_nnx,
    register,
)

__all__ = [
    "DENSE",
    "Layout",
    "Layouts",
    "by_name",
    "conv",
    "from_layers",
    "map_layers",
    "of_equinox",
    "of_haiku",
    "of_keras",
    "of_linen",
    "of_linen_init",
    "of_nnx",
    "register",
    "require",
    "resolve",
    "to_layers",
]
