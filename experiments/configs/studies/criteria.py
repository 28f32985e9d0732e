"""A ranking of criteria: which weights to keep, before or after training."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """One shot to density .05, 48 seeds; at initialisation with twice the steps."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    config.experiment.train.update(steps=300)
    config.experiment.prune.levels = 0  # masks are made by the study
    config.experiment.controls = ()
    config.study = ConfigDict(
        {
            "delta": 1.0,  # points of test accuracy
            "density": 0.05,
            "criteria": ("magnitude", "snip", "grasp", "synflow", "obd", "random"),
            "examples": 512,  # that a criterion sees
            "rounds": 100,  # of SynFlow
            "dense_rate": 3e-3,
            "rates": (1e-2, 3e-2),
            "pilot_seeds": 6,
            "control_seeds": 64,
        }
    )
    if size == "full":
        common.lenet(config)
        config.study.dense_rate = 1.2e-3
    return config
