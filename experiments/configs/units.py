"""Structured pruning of whole units, which makes networks smaller.

Densities count weights, so these ladders are comparable with unstructured ladders. The controls
have the shape of the ticket: its mask on newly initialised weights ("reinit"), weights initialised
for the small shape ("scratch", Liu et al., 2019), and the same number of random units of each layer
with the original initialisation ("random_units"). `python -m experiments.latency RUN` measures the
compacted networks.

Sizes:
  * `units.py` or `units.py:hidden`: hidden units of an MLP 64-256-128-10 on digits;
  * `units.py:channels`: channels of a small convolutional network;
  * `units.py:resnet`: channels of a residual network by BatchNorm's scales, in multiples of 2;
  * `units.py:heads`: attention heads of a small Vision Transformer;
  * `units.py:refill`, `units.py:regroup`: an unstructured ladder of the first network; the controls
    refill whole units of each ticket, or regroup its weights into dense blocks (Chen et al., 2022,
    "Coarsening the granularity").
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from experiments.configs import base
from lth_jax.legal import check_name


def get_config(what: str = "hidden") -> ConfigDict:
    """A ladder of units on digits.

    Args:
      what: one of `SIZES`.
    """
    check_name("what", what, SIZES)
    config = base.ladder()
    experiment = config.experiment
    experiment.name = f"units_{what}"
    experiment.train.update(steps=600, eval_every=50)
    experiment.prune.update(granularity="units", scope="layerwise", rate=0.5, levels=6)
    experiment.controls = ("reinit", "scratch", "random_units")
    SIZES[what](experiment)
    return config


def _hidden(experiment: ConfigDict) -> None:
    experiment.model.options = ConfigDict({"features": (256, 128, 10)})


def _channels(experiment: ConfigDict) -> None:
    experiment.model.name = "convnet"
    experiment.model.options = ConfigDict({"stages": ((16, 16), (32, 32)), "hidden": ()})
    _shorten(experiment)


def _resnet(experiment: ConfigDict) -> None:
    experiment.model.name = "resnet"
    experiment.model.options = ConfigDict({"blocks": (1, 1, 1), "width": 8})
    experiment.prune.update(criterion="norm_scales", unit_multiple=2)
    _shorten(experiment)


def _heads(experiment: ConfigDict) -> None:
    experiment.model.name = "vit"
    experiment.model.options = ConfigDict({"width": 32, "heads": 8, "hidden": 64})
    experiment.prune.groups = ("*Attention*",)
    _shorten(experiment)
    experiment.replicates = 5
    experiment.train.steps = 400
    experiment.prune.levels = 3  # 4, 2 and 1 of 8 heads


def _refill(experiment: ConfigDict) -> None:
    _hidden(experiment)
    experiment.prune.update(granularity="weights", scope="globally")
    experiment.controls = ("refill", "refill_reinit", "refill_scratch", "refill_random")


def _regroup(experiment: ConfigDict) -> None:
    _refill(experiment)
    experiment.controls = ("regroup", "regroup_reinit", "regroup_random")


def _shorten(experiment: ConfigDict) -> None:
    """Shortens the training for convolutions and attention, which then take minutes."""
    experiment.replicates = 3
    experiment.train.update(steps=200, batch_size=32)
    experiment.prune.levels = 4


SIZES: dict[str, Callable[[ConfigDict], None]] = {
    "hidden": _hidden,
    "channels": _channels,
    "resnet": _resnet,
    "heads": _heads,
    "refill": _refill,
    "regroup": _regroup,
}
