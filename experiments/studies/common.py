"""What the studies on MNIST-1D have in common: fresh data for every seed, seeds of their own."""

import copy
from typing import Any

from ml_collections import ConfigDict

from experiments.configs import base

PRIMARY_SEED, PILOT_SEED = 1, 2
"""`experiment.seed` of what decides a question, and of what settings were chosen on."""

LAPTOP, SMOKE, FULL = SIZES = ("laptop", "smoke", "full")


def ladder(seeds: int) -> ConfigDict:
    """A ladder on a study's primary seeds."""
    config = base.ladder()
    config.experiment.update(replicates=seeds, seed=PRIMARY_SEED)
    return config


def numbers(**values: Any) -> ConfigDict:
    """The numbers of a study: seeds, δ, candidates."""
    return ConfigDict(values)


def mnist1d(seeds: int, examples: int = 4000) -> ConfigDict:
    """A ladder of an MLP 40-90-90-10 (12,600 weights) on MNIST-1D.

    Every replicate has `examples` training examples that no other has, 2,000 validation examples
    decide settings, and 20,000 test examples that nothing was chosen on measure.

    Args:
      seeds: replicates.
      examples: for each of them, at most 4,000.
    """
    config = ladder(seeds)
    experiment = config.experiment
    experiment.data.update(name="mnist1d", validation=2000)
    experiment.data.options = ConfigDict({"data_seed": 7, "train": 194_000, "test": 20_000})
    experiment.model.options = ConfigDict({"features": (90, 90, 10)})
    experiment.train.update(steps=700, eval_every=100, batch_size=128, share=examples)
    experiment.optimizer.learning_rate = 1e-2
    experiment.prune.update(scope="layerwise", rate=0.4, levels=4)
    experiment.controls = ("shuffle",)
    return config


def lenet(config: ConfigDict, steps: int = 20_000) -> None:
    """Makes a study on small data one of LeNet-300-100 on MNIST (Frankle & Carbin, 2019).

    Args:
      config: of the study, changed in place.
      steps: of each training; the paper has 50,000.
    """
    config.experiment.model.options = ConfigDict({"features": (300, 100, 10)})
    on_mnist(config, "LeNet-300-100", steps)


def on_mnist(config: ConfigDict, network: str, steps: int = 20_000) -> None:
    """Makes a study on small data one of MNIST, with Adam at the rates that suit it.

    All seeds share the 55,000 training examples; 5,000 decide settings and 10,000 test. The four
    idx files of MNIST are the user's.

    Args:
      config: of the study, changed in place.
      network: what it is called in the set-up.
      steps: of each training.
    """
    experiment = config.experiment
    experiment.data.update(name="mnist", validation=5000)
    experiment.data.options = ConfigDict({})
    experiment.train.update(steps=steps, eval_every=steps // 20, batch_size=60, share=0)
    experiment.optimizer.update(name="adam", learning_rate=1.2e-3)
    if "rates" in config.study:
        config.study.rates = (4e-4, 1.2e-3, 3.6e-3)
    config.study.setup = (
        f"{network} on MNIST, one training set for all seeds, Adam, batches of 60, "
        f"{steps:,} steps; pruned and rewound as on a laptop."
    )


def longer(config: ConfigDict, steps: int, **options: object) -> None:
    """Makes a study one of more steps, and of a larger network where options are given.

    Args:
      config: of the study, changed in place.
      steps: of each training.
      **options: of the model.
    """
    config.experiment.train.update(steps=steps, eval_every=steps // 10)
    config.experiment.model.options.update(options)
    larger = ", ".join(f"{name} {value}" for name, value in options.items())
    config.study.setup = f"As on a laptop, with {steps:,} steps" + (
        f" and a network of {larger}." if larger else "."
    )


def pilot(config: ConfigDict, seeds: int = 8) -> ConfigDict:
    """The same experiment on pilot seeds and pilot data, which no study's verdict sees."""
    varied = copy.deepcopy(config)
    varied.experiment.update(seed=PILOT_SEED, replicates=seeds)
    data, share = varied.experiment.data, varied.experiment.train.share
    if "train" in data.options:  # what is made can be made anew
        data.options.update(data_seed=8, train=seeds * share + data.validation, test=2000)
    return varied


def check_size(size: str) -> None:
    """Raises `ValueError` for a size that there is not."""
    if size not in SIZES:
        raise ValueError(f"`size` is {size!r}; it must be one of {', '.join(SIZES)}.")
