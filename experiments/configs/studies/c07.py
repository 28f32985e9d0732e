"""C7, implicit regularisation: more error on the training set, no more on the test set."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 700 steps, density .13: where a pilot saw the training error rise."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    config.experiment.controls = ("reinit", "shuffle")
    config.experiment.control_levels = (4,)
    config.study = ConfigDict(
        {
            "delta": 2.0,  # points of training error
            "margin": 1.0,  # points of test accuracy that may be lost
            "rates": (3e-3, 1e-2, 3e-2),
            "pilot_seeds": 8,
            "noise": 1.0,  # the memorisation arm: all labels are drawn at random
            "small": (22, 22, 10),  # dense, with as many weights as the ticket has
            "control_seeds": 64,
        }
    )
    if size == "full":
        common.lenet(config)
        config.study.small = (43, 14, 10)
    return config
