"""Converts networks of any framework to `Model`s, pairs of pure functions."""

from lth_jax.models.adapters.any import as_model
from lth_jax.models.adapters.equinox import from_equinox
from lth_jax.models.adapters.haiku import from_haiku
from lth_jax.models.adapters.keras import from_keras
from lth_jax.models.adapters.keras_sizes import to_keras
from lth_jax.models.adapters.linen import from_linen
from lth_jax.models.adapters.nnx import from_nnx

__all__ = [
    "as_model",
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "to_keras",
]
