"""Granularities: what is removed together.

A granularity maps leaf scores to unit scores, and a mask of units back to a mask of leaves. The
scope counts weights at every granularity: it keeps the fewest best units that together hold
`count` weights or more (a unit's pruned weights count like the others), which for single weights is
exactly `count`.

Which axes of a kernel are inputs, outputs, window and stacked layers comes from `layouts`
(`lth_jax.layouts`). Every granularity but `weights` and `groups` sees a kernel as
`(layers, window, inputs, outputs)`: a stack is so many layers, each with units of its own.
"""

from lth_jax.pruning.granularity.boxes import (
    blocks,
    columns,
    heads,
    kernels,
    output_channels,
    rows,
)
from lth_jax.pruning.granularity.groups import groups
from lth_jax.pruning.granularity.pattern import n_m
from lth_jax.pruning.granularity.units import Granularity, Reduction, Units, l1, l2, weights

__all__ = [
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
