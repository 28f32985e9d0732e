"""Recipes of the literature: configs of a paper's experiment, and the numbers that it states.

A recipe is a module with `RECIPE`, `configs(size) -> {run: config}` for `"short"` and `"full"`, and
`get_config("SIZE")` or `get_config("SIZE/RUN")` for `experiments.run`. A run `NAME@DENSITY` is a
further density of the curve `NAME`. `python -m experiments.literature NAME:SIZE` trains all runs
and compares them with the paper.
"""

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from experiments.configs import base
from lth_jax.legal import check_name
from lth_jax.models.signals import on_signals as on_signals
from lth_jax.report.recipes import SHORT as SHORT
from lth_jax.report.recipes import SIZES

EXAMPLES = {"cifar10": 45_000, "mnist": 55_000}
"""Training examples beside 5,000 for validation."""

Configs = Callable[[str], dict[str, ConfigDict]]


def recipes() -> dict[str, ModuleType]:
    """The modules of all recipes by name."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name[0] != "_")
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def picker(configs: Configs) -> Callable[[str], ConfigDict]:
    """The `get_config` of a recipe: of `"SIZE"`, its first run, or of `"SIZE/RUN"`."""

    def get_config(argument: str = SHORT) -> ConfigDict:
        size, _, run = argument.partition("/")
        found = configs(checked(size))
        if run:
            check_name("run", run, found)
        return found[run] if run else next(iter(found.values()))

    return get_config


def checked(size: str) -> str:
    """The size, if it is one of `SIZES`."""
    check_name("size", size, SIZES)
    return size


def ladder(recipe: str, run: str = "") -> ConfigDict:
    """The default config, with no controls, named after the recipe and the run."""
    config = base.ladder()
    config.experiment.name = "-".join(filter(None, (recipe, run.replace("@", "-"))))
    config.experiment.controls = ()
    return config


def small(experiment: ConfigDict, name: str = "digits", validation: int = 200) -> None:
    """The data set of a short size, in place."""
    experiment.data.update(name=name, validation=validation)


def signals(experiment: ConfigDict, network: str, **options: Any) -> None:
    """MNIST-1D and a network of images on its signals, in place; without augmentation."""
    small(experiment, "mnist1d", 500)
    experiment.train.update(crop=0, crop_area=0.0, flip=False)
    experiment.model.name = "experiments.configs.literature:on_signals"
    experiment.model.options = ConfigDict({"network": network, **options})


def images(experiment: ConfigDict, name: str = "cifar10", validation: int = 5000) -> None:
    """The data set of a full size, in place, with the usual augmentation for CIFAR."""
    experiment.data.update(name=name, validation=validation)
    if name.startswith("cifar"):
        experiment.train.update(crop=4, flip=True)


def epochs(experiment: ConfigDict, count: int, batch: int) -> None:
    """Trains for `count` epochs of the data set, each followed by an evaluation, in place.

    >>> experiment = ladder("demo").experiment
    >>> images(experiment)
    >>> epochs(experiment, 160, 128)
    >>> experiment.train.steps, experiment.train.eval_every
    (56160, 351)
    """
    steps = EXAMPLES[experiment.data.name] // batch
    experiment.train.update(steps=count * steps, eval_every=steps, batch_size=batch)


def sgd(
    experiment: ConfigDict, rate: float, decay: float, *, warmup: int = 0, schedule: str = "step"
) -> None:
    """SGD with Nesterov momentum 0.9, in place; the rate falls to a tenth at 1/2 and 3/4."""
    experiment.optimizer.update(
        name="nesterov", learning_rate=rate, weight_decay=decay, schedule=schedule, warmup=warmup
    )
