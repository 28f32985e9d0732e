"""Image networks on one-dimensional signals."""

import jax
from flax import linen as nn

from lth_jax.models.networks import NETWORKS


class OnSignals(nn.Module):
    """An image network on signals: `(batch, length) -> network((batch, length, 1))`.

    Attributes:
      network: a network for any number of spatial axes.
    """

    network: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, length)` to the outputs of the network."""
        return self.network(x[..., None], train=train)


def on_signals(network: str, **options: object) -> OnSignals:
    """A built-in image network on signals `(batch, length)`.

    Args:
      network: a key of `NETWORKS`.
      **options: its attributes.

    >>> on_signals("resnet", width=4).network.width
    4
    """
    return OnSignals(NETWORKS[network](**options))
