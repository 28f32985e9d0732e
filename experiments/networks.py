"""The network of a config."""

from typing import Any

from ml_collections import ConfigDict

from experiments.flags import UserError
from lth_jax import models
from lth_jax.types import Model


def model(experiment: ConfigDict) -> Model:
    """The network as two functions, computing in the config's dtype."""
    return models.compute_in(models.from_linen(module(experiment)), experiment.train.compute_dtype)


def module(experiment: ConfigDict) -> Any:
    """The network as a Linen module.

    Raises:
      UserError: if its options cannot be right.
    """
    make = models.NETWORKS[experiment.model.name]
    try:
        return make(**experiment.model.options.to_dict())
    except (TypeError, ValueError) as error:
        raise UserError(f"`model.options` of '{experiment.model.name}': {error}") from error
