"""Data as arrays in memory, prepared once through TFDS, and the order in which they are seen."""

from lth_jax.data.arrays import from_arrays
from lth_jax.data.datasets import Dataset, dataset_of, load
from lth_jax.data.on_disk import OnDisk
from lth_jax.data.order import in_order, indices
from lth_jax.registry import import_modules

import_modules(__name__, __path__)  # a new file needs no line here

__all__ = ["Dataset", "OnDisk", "dataset_of", "from_arrays", "in_order", "indices", "load"]
