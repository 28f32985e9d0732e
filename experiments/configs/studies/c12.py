"""C12, transfer: masks of plain networks in residual ones of the same shapes."""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """A residual MLP on 4,000 examples, 400 steps, density .13; and a residual conv net on digits.

    `experiment` is what masks are carried into, and `conv` of the second pair; `plain` and
    `conv_plain` are the networks where they come from.
    """
    common.check_size(size)
    config = common.mnist1d(seeds=24)
    experiment = config.experiment
    experiment.model.name = "residual_mlp_glorot"
    experiment.model.options = ConfigDict({"width": 64})
    experiment.train.update(steps=400, eval_every=200)
    experiment.control_levels = (4,)
    config.study = ConfigDict(
        {
            "delta": 2.0,  # points of test accuracy, transfer − shuffle
            "kept": 0.25,  # the share of the native mask's worth that must survive
            "rates": (3e-3, 1e-2, 3e-2),
            "pilot_seeds": 8,
            "conv_rates": (1e-2, 3e-2),
            "conv_pilot_seeds": 3,
            "plain": {"name": "mlp", "options": {"features": (64, 64, 10)}},
            "conv_plain": {"name": "vgg", "options": {"stages": ((8, 8, 8),)}},
            "control_seeds": 64,
        }
    )
    config.conv = _conv(seeds=16)
    if size == "full":
        experiment.replicates = 48
        experiment.model.options.width = 300
        config.study.plain.options.features = (300, 300, 10)
        common.on_mnist(config, "MLPs 784-300-300-10")
        _on_cifar(config.conv)
        config.study.conv_plain.options.stages = ((64, 64, 64),)
        config.study.conv_rates = (3e-4, 1e-3, 3e-3)
        config.study.setup += " The second pair: 64 channels, on CIFAR-10, with 10,000 steps."
    return config


def _on_cifar(experiment: ConfigDict) -> None:
    experiment.replicates = 48
    experiment.data.update(name="cifar10", validation=5000, train_examples=0)
    experiment.model.options.width = 64
    experiment.train.update(steps=10_000, eval_every=1000, batch_size=128)
    experiment.optimizer.learning_rate = 1e-3


def _conv(seeds: int) -> ConfigDict:
    """The second pair: a residual block on 400 digits, beside as many plain convolutions."""
    experiment = base.ladder().experiment
    experiment.update(replicates=seeds, seed=common.PRIMARY_SEED, controls=("shuffle",))
    experiment.data.update(validation=200, train_examples=400)
    experiment.model.name = "resnet"
    experiment.model.options = ConfigDict({"blocks": (1,), "width": 8})
    experiment.train.update(steps=200, eval_every=100, batch_size=64)
    experiment.optimizer.learning_rate = 1e-2
    experiment.prune.update(scope="layerwise", rate=0.5, levels=3)
    experiment.control_levels = (3,)
    return experiment
