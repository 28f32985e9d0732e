"""C8, little data: the best density against the number of examples and the noise of labels."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """250, 1,000 and 4,000 examples with true labels and a fifth drawn at random, 300 steps."""
    common.check_size(size)
    config = common.mnist1d(seeds=32)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=300, eval_every=150)
    experiment.prune.levels = 6
    experiment.control_levels = (4,)
    config.study = ConfigDict(
        {
            "delta": 1.0,  # octaves of density
            "examples": (250, 1000, 4000),
            "asked": (1000, 4000),  # of them, between which the best density is compared
            "noises": (0.0, 0.2),
            "rates": (3e-3, 1e-2, 3e-2),
            "pilot_seeds": 4,
            "map_seeds": 8,  # of the cells that the question is not asked of
            "control_seeds": 64,
        }
    )
    if size == "full":
        common.lenet(config, steps=5000)
        experiment.replicates = 13  # 55,000 examples are enough for no more
        experiment.train.share = 4000
        config.study.noises = (0.0, 0.1, 0.2, 0.4)
        config.study.setup = config.study.setup.replace(
            "one training set for all seeds", "250 to 4,000 examples of its own for every seed"
        )
    return config
