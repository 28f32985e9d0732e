"""C13, distillation: a sparse student with its dense parent as its teacher."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 700 steps, students of density .13."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    config.experiment.control_levels = (4,)
    config.study = ConfigDict(
        {
            "delta": 1.0,  # points of test accuracy
            "rates": (3e-3, 1e-2, 3e-2),
            "temperatures": (1.0, 2.0, 4.0),
            "weights": (0.5, 1.0),  # of the teacher in the loss
            "pilot_seeds": 4,
            "control_delta": 0.05,  # of the noise's variance
            "control_seeds": 64,
        }
    )
    if size == "full":
        common.lenet(config)
    return config
