"""Data as arrays in memory, prepared once through TFDS, and the order in which they are seen."""

from lth_jax.data.arrays import from_arrays
from lth_jax.data.datasets import Dataset, dataset_of, load
from lth_jax.data.on_disk import OnDisk
from lth_jax.data.order import in_order, indices

__all__ = ["Dataset", "OnDisk", "dataset_of", "from_arrays", "in_order", "indices", "load"]
