"""C14, fairness: a tenth of the examples follows a rule of its own."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 700 steps, five rounds; the question is asked after four, at density .13."""
    common.check_size(size)
    config = common.mnist1d(seeds=24)
    experiment = config.experiment
    experiment.data.name = "grouped"
    experiment.data.options = ConfigDict(
        {
            "data_seed": 7,
            "features": 20,
            "minority": 0.1,
            "gap": 0.4,  # how often the rules of the groups disagree
            "train": 98_000,
            "test": 40_000,
        }
    )
    experiment.model.options.features = (90, 90, 2)
    experiment.prune.levels = 5
    experiment.control_levels = (4,)
    config.study = ConfigDict(
        {
            "delta": 2.0,  # points by which the gap grows
            "margin": 1.0,  # points of accuracy, on the mix trained on, that may be lost
            "level": 4,  # the question is asked there
            "pilot_data": 8,  # the data seed that settings are chosen on
            "rates": (3e-3, 1e-2, 3e-2),
            "pilot_seeds": 4,
            "sharpness": 3.0,  # of the robust loss, per nat
            "examples": 512,  # that a mask of one shot is scored on
            "null_seeds": 12,  # with groups of one size
            "control_seeds": 64,
        }
    )
    if size == "full":
        common.lenet(config)
        experiment.data.options = ConfigDict({"data_seed": 7, "minority": 0.1})
        config.study.setup += " The minority's images are turned by half a turn."
    return config
