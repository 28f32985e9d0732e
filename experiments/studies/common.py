"""Shared configs of studies: MNIST-1D with separate data for every seed, MNIST, pilots."""

import copy
import zlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments.configs import base
from lth_jax.legal import check_name
from lth_jax.measures.judge import ROUNDS

PILOT = "pilot"
"""The round of a few seeds that `atlas plan` runs."""

LAPTOP, SMOKE, FULL = SIZES = ("laptop", "smoke", "full")

RATE = "optimizer__learning_rate"
"""The learning rate, as a keyword of `vary`."""


def vary(config: ConfigDict, **changes: Any) -> ConfigDict:
    """A copy of a config with fields of `experiment` set; `__` stands for the dot.

    >>> from experiments.configs import base
    >>> vary(base.ladder(), train__steps=7, seed=3).experiment.train.steps
    7
    """
    varied = copy.deepcopy(config)
    varied.experiment.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changes.items()}
    )
    return varied


def without_training_metrics(config: ConfigDict) -> ConfigDict:
    """A copy for studies without training metrics, which evaluates one batch of training data.

    No protocol has it, since results on other data stay the same.
    """
    varied = copy.deepcopy(config)
    for experiment in experiments_of(varied):
        experiment.train.eval_examples = experiment.train.batch_size
    return varied


def dense_only(config: ConfigDict, **changes: Any) -> ConfigDict:
    """A copy of a config that trains only its dense networks, with the changes of `vary`."""
    return vary(config, prune__levels=0, controls=(), control_levels=(), **changes)


def dense_beside(config: ConfigDict, small: Sequence[int]) -> dict[str, ConfigDict]:
    """Dense networks of a ticket's size, and dense networks trained as long as all levels together.

    Args:
      config: config of the ladder.
      small: widths of an MLP with as many weights as a ticket.

    Returns:
      `"small"` and `"dense+"`, for `StudyRunner.tuned(beside=…)`.
    """
    dense = dense_only(config)
    longer = config.experiment.train.steps * (1 + config.experiment.prune.levels)
    return {
        "small": vary(dense, model__options__features=tuple(small)),
        "dense+": vary(dense, train__steps=longer),
    }


def at_round(config: ConfigDict, claim: str, name: str, seed: int = 0) -> ConfigDict:
    """The config with seeds and data that belong to one claim and one round alone.

    Sets `experiment.seed`, `data.seed` and, of generated data, `data_seed` of every experiment in
    the config, and `study.seed`. A protocol that was changed after its data had been seen has a
    `study.series` of 1 or more, and with it seeds and data that no earlier version used.

    Args:
      config: of a study, left as it is.
      claim: the claim.
      name: one of `judge.ROUNDS`, or `PILOT`.
      seed: 0 for the published rounds; another number gives other seeds and data.

    >>> from experiments.studies import STUDIES
    >>> config = STUDIES["C7"].get_config()
    >>> seeds = [at_round(config, "C7", name).experiment.seed for name in ROUNDS]
    >>> seeds[1] - seeds[0]
    1
    """
    varied = copy.deepcopy(config)
    others = {"series": config.study.get("series", 0), "seed": seed}
    label = ", ".join([claim, *(f"{kind} {number}" for kind, number in others.items() if number)])
    own = zlib.crc32(label.encode()) % 2**20 * 16 + (*ROUNDS, PILOT).index(name)
    varied.study.seed = own
    for experiment in experiments_of(varied):
        experiment.seed = experiment.data.seed = own
        if "data_seed" in experiment.data.options:
            experiment.data.options.data_seed = own
    return varied


def experiments_of(config: ConfigDict) -> list[ConfigDict]:
    """All experiments in a config: the parts that have data and seeds."""
    if "replicates" in config and "data" in config:
        return [config]
    inner = [part for part in config.values() if isinstance(part, ConfigDict)]
    return [experiment for part in inner for experiment in experiments_of(part)]


def ladder(seeds: int) -> ConfigDict:
    """A ladder of a study."""
    config = base.ladder()
    config.experiment.replicates = seeds
    return config


def numbers(**values: Any) -> ConfigDict:
    """The `study` part of a config: seeds, δ, candidates."""
    return ConfigDict(values)


def mnist1d(seeds: int, examples: int = 4000) -> ConfigDict:
    """A ladder of an MLP 40-90-90-10 (12,600 weights) on MNIST-1D.

    Every replicate has `examples` separate training examples. 2,000 validation examples choose
    settings; 20,000 test examples are used for results only.
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
    """Changes a study in place to LeNet-300-100 on MNIST (Frankle & Carbin, 2019: 50,000 steps)."""
    config.experiment.model.options = ConfigDict({"features": (300, 100, 10)})
    on_mnist(config, "LeNet-300-100", steps)


def on_mnist(config: ConfigDict, network: str, steps: int = 20_000) -> None:
    """Changes a study in place to MNIST, with Adam at suitable rates.

    All seeds share the 55,000 training examples; 5,000 examples validate and 10,000 test. The user
    provides the four idx files of MNIST.
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
    """Changes a study in place to more steps, and to a larger network if options are given."""
    config.experiment.train.update(steps=steps, eval_every=steps // 10)
    config.experiment.model.options.update(options)
    larger = ", ".join(f"{name} {value}" for name, value in options.items())
    config.study.setup = f"As on a laptop, with {steps:,} steps" + (
        f" and a network of {larger}." if larger else "."
    )


def check_size(size: str) -> None:
    """Raises `ValueError` for an unknown size."""
    check_name("size", size, SIZES)
