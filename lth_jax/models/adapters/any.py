"""Converts a user's network to a `Model`."""

from typing import Any

from flax import linen, nnx

from lth_jax.models.adapters.calls import parameters_of
from lth_jax.models.adapters.equinox import from_equinox
from lth_jax.models.adapters.haiku import from_haiku
from lth_jax.models.adapters.keras import from_keras, is_keras
from lth_jax.models.adapters.linen import from_linen
from lth_jax.models.adapters.nnx import from_nnx
from lth_jax.types import Model


def as_model(network: Any) -> Model:
    """Converts a network of any framework to a `Model`, by the adapter with its default options.

    Args:
      network: a Linen module; a transformed Haiku function; a function of `rngs` that makes an NNX
        module, or the module's class; a function of `key` that makes an Equinox module; a Keras
        model; or a `Model`.

    Raises:
      TypeError: if `network` is none of these.

    >>> import jax, jax.numpy as jnp
    >>> model = as_model(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
    >>> model.init(jax.random.key(0), jnp.ones((1, 4)))[0]["kernel"].shape
    (4, 2)
    """
    if isinstance(network, Model):
        return network
    if isinstance(network, linen.Module):
        return from_linen(network)
    if is_keras(network):
        return from_keras(network)
    if hasattr(network, "init") and hasattr(network, "apply") and not isinstance(network, type):
        return from_haiku(network)
    if callable(network) and not isinstance(network, nnx.Module):
        parameters = parameters_of(network)
        if "rngs" in parameters:
            return from_nnx(lambda rngs: network(rngs=rngs))
        if "key" in parameters:
            return from_equinox(lambda key: network(key=key))
    raise TypeError(
        f"`model` is {network!r:.80}; it must be a Linen module, a transformed Haiku function, a "
        "function of `rngs` that makes an NNX module, a function of `key` that makes an Equinox "
        "module, a Keras model, or a `Model`."
    )
