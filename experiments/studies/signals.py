"""Convolutional networks for MNIST-1D, whose signals `(batch, time)` lack an axis of channels."""

import functools
from typing import Any

import jax
from flax import linen as nn

from lth_jax.models.networks import NETWORKS


class OfSignals(nn.Module):
    """A network on signals of one channel; its parameters have the names of the network's own.

    Attributes:
      net: maps `(batch, time, 1)` to logits.
    """

    net: nn.Module

    def setup(self) -> None:
        """Names the parameters as those of the network."""
        nn.share_scope(self, self.net)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, time)` to logits `(batch, classes)`."""
        logits: jax.Array = self.net(x[..., None], train=train)
        return logits


def _network(name: str, **options: Any) -> OfSignals:
    return OfSignals(NETWORKS[name](**options))


vgg = functools.partial(_network, "vgg")
resnet = functools.partial(_network, "resnet")
convnet = functools.partial(_network, "convnet")
