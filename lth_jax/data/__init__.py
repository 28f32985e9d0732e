"""Data sets as arrays in memory, prepared once with TFDS, and the order of examples in training."""

from lth_jax.data.arrays import from_arrays
from lth_jax.data.datasets import Dataset, dataset_of, load
from lth_jax.data.on_disk import OnDisk
from lth_jax.data.order import in_order, indices
from lth_jax.registry import import_modules

import_modules(__name__, __path__)  # every module registers its parts

__all__ = [
    "Dataset",
    "OnDisk",
    "dataset_of",
    "from_arrays",
    "in_order",
    "indices",
    "load",
]
