"""The network of a config."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments.flags import UserError
from lth_jax import models
from lth_jax.types import Model


def model(experiment: ConfigDict) -> Model:
    """The network as two functions, computing in the config's dtype."""
    return models.compute_in(models.from_linen(module(experiment)), experiment.train.compute_dtype)


def dropout(experiment: ConfigDict) -> float:
    """The chance for an entry to be dropped; 0 for a network that drops none."""
    return float(experiment.model.options.to_dict().get("dropout", 0.0))


def model_in_training(experiment: ConfigDict) -> Callable[[Mapping[str, Any]], Model] | None:
    """The network by a member's numbers; None where they do not change it."""
    if not dropout(experiment):
        return None
    whole, dtype = module(experiment), experiment.train.compute_dtype

    def make(hyper: Mapping[str, Any]) -> Model:
        return models.compute_in(models.from_linen(whole.clone(dropout=hyper["dropout"])), dtype)

    return make


def module(experiment: ConfigDict) -> Any:
    """The network as a Linen module.

    Raises:
      UserError: if its options cannot be right.
    """
    make, chance = models.NETWORKS[experiment.model.name], dropout(experiment)
    if not 0 <= chance < 1:
        raise UserError(f"`model.options.dropout` is {chance}; a chance lies in [0, 1).")
    try:
        return make(**experiment.model.options.to_dict())
    except (TypeError, ValueError) as error:
        raise UserError(f"`model.options` of '{experiment.model.name}': {error}") from error
