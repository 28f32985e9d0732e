"""C4, structured tickets: channels of a small convolutional network, heads of a small ViT."""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """400 digits to train on; two rounds to a quarter of the weights, about half of the units."""
    common.check_size(size)
    config = _structured("convnet", {"stages": ((8, 8), (16, 16)), "hidden": ()})
    config.heads = ConfigDict(
        {
            "experiment": _structured(
                "vit", {"patch": 4, "width": 32, "heads": 8, "hidden": 64, "layers": 1}
            ).experiment
        }
    )
    config.heads.experiment.prune.groups = ("*Attention*",)
    config.study = ConfigDict(
        {
            "margin": 1.0,  # points of test accuracy that may be lost
            "delta": 10.0,  # per cent of the time of a forward pass that must be saved
            "rates": (3e-3, 1e-2),
            "pilot_seeds": 4,
            "longer": 4,  # trainings that the full budget of the small shape stands for
            "batch": 512,  # of a timed forward pass
            "rounds": (40, 5),  # blocks, and rounds of which the fastest counts
            "control_seeds": 24,
        }
    )
    if size == "full":
        config.experiment.model.options.stages = ((64, 64), (128, 128))
        config.heads.experiment.model.options.update(width=192, hidden=384, layers=6)
        for experiment in (config.experiment, config.heads.experiment):
            experiment.data.update(name="cifar10", validation=5000, train_examples=0)
            experiment.train.update(steps=10_000, eval_every=1000, batch_size=128)
        config.study.rates = (3e-4, 1e-3)
        config.study.setup = (
            "CIFAR-10: a convolutional network of 64 and 128 channels, and a ViT of six layers and "
            "width 192; Adam, 10,000 steps; pruned and rewound as on a laptop."
        )
    return config


def _structured(model: str, options: dict) -> ConfigDict:
    config = base.ladder()
    experiment = config.experiment
    experiment.replicates, experiment.seed = 20, common.PRIMARY_SEED
    experiment.data.train_examples = 400
    experiment.model.name, experiment.model.options = model, ConfigDict(options)
    experiment.train.update(steps=200, eval_every=100, batch_size=32)
    experiment.prune.update(granularity="units", scope="layerwise", rate=0.5, levels=2)
    experiment.controls, experiment.control_levels = ("scratch", "random_units"), (2,)
    return config
