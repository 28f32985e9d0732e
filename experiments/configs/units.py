"""Tickets of whole units: structured ladders that end in smaller, faster networks.

Weights remaining are counted as everywhere, so these ladders meet unstructured ones at the same
densities. The controls have the ticket's own shape: newly drawn weights ("reinit", the same shape
from scratch), and as many units of each layer drawn at random, from the original initialisation
("random_units"). `python -m experiments.latency RUN` measures the networks they shrink to.

Sizes:
  * `units.py` or `units.py:hidden`: hidden units of an MLP 64-256-128-10 on digits;
  * `units.py:channels`: channels of a small convolutional network;
  * `units.py:resnet`: channels of a residual network by BatchNorm's scales, in multiples of 2;
  * `units.py:refill`: an unstructured ladder of the first network, each ticket with its refilled
    twin and the twin's controls (Chen et al., 2022, "Coarsening the granularity").
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(what: str = "hidden") -> ConfigDict:
    """A ladder of units on digits.

    Args:
      what: `"hidden"`, `"channels"`, `"resnet"` or `"refill"`.
    """
    config = base.ladder()
    experiment = config.experiment
    experiment.name = f"units_{what}"
    experiment.model.options = ConfigDict({"features": (256, 128, 10)})
    experiment.train.update(steps=600, eval_every=50)
    experiment.prune.update(granularity="units", scope="layerwise", rate=0.5, levels=6)
    experiment.controls = ("reinit", "random_units")
    if what == "refill":
        experiment.prune.update(granularity="weights", scope="globally")
        experiment.controls = ("refill", "refill_reinit", "refill_random")
    elif what == "channels":
        experiment.model.name = "convnet"
        experiment.model.options = ConfigDict({"stages": ((16, 16), (32, 32)), "hidden": ()})
        _shorten(experiment)
    elif what == "resnet":
        experiment.model.name = "resnet"
        experiment.model.options = ConfigDict({"blocks": (1, 1, 1), "width": 8})
        experiment.prune.update(criterion="norm_scales", multiple=2)
        _shorten(experiment)
    elif what != "hidden":
        raise ValueError(
            f"`what` is {what!r}; it must be 'hidden', 'channels', 'resnet' or 'refill'."
        )
    return config


def _shorten(experiment: ConfigDict) -> None:
    """What convolutions can do in minutes on two cores."""
    experiment.replicates = 3
    experiment.train.update(steps=200, batch_size=32)
    experiment.prune.levels = 4
