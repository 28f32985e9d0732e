"""Networks by arguments alone, and the adapters that make any Flax module a `Model`."""

from lth_jax.models.adapters import from_linen, from_nnx
from lth_jax.models.mlp import MLP, ResidualMLP

__all__ = ["MLP", "ResidualMLP", "from_linen", "from_nnx"]
