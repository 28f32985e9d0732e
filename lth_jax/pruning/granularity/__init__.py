"""Granularities: which weights are removed together.

A granularity maps leaf scores to unit scores, and a mask of units back to a mask of leaves. The
scope counts weights at every granularity. It keeps the smallest number of best units that together
hold at least `count` weights, pruned weights of a unit included; for single weights this is exactly
`count`.

`layouts` (`lth_jax.layouts`) declares which axes of a kernel are inputs, outputs, window and
stacked layers. All granularities except `weights` and `groups` reshape a kernel to `(layers,
window, inputs, outputs)`. Each stacked layer has its own units.
"""

from lth_jax.pruning.granularity.boxes import blocks, columns, heads, kernels, output_channels, rows
from lth_jax.pruning.granularity.groups import groups
from lth_jax.pruning.granularity.pattern import n_m
from lth_jax.pruning.granularity.units import (
    GRANULARITIES,
    Granularity,
    Reduction,
    Units,
    l1,
    l2,
    weights,
)

__all__ = [
    "GRANULARITIES",
    "Granularity",
    "Reduction",
    "Units",
    "blocks",
    "columns",
    "groups",
    "heads",
    "kernels",
    "l1",
    "l2",
    "n_m",
    "output_channels",
    "rows",
    "weights",
]
