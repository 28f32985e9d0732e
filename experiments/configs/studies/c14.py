"""C14, fairness: a tenth of the signals is upside down."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 700 steps, five rounds; the question is asked after four, at density .13.

    Args:
      size: `"smoke"`, `"laptop"` or `"full"`.
    """
    common.check_size(size)
    config = common.mnist1d(seeds=24)
    experiment = config.experiment
    experiment.data.options.update(train=98_000, minority=0.1)
    experiment.prune.levels = 5
    experiment.control_levels = (4,)
    config.study = ConfigDict(
        {
            "delta": 2.0,  # points by which the gap grows
            "margin": 1.0,  # points of accuracy, on the mix trained on, that may be lost
            "level": 4,  # the question is asked there
            "rates": (3e-3, 1e-2, 3e-2),
            "pilot_seeds": 4,
            "sharpness": 3.0,  # of the robust loss, per nat
            "null_seeds": 12,  # with groups of one size
            "control_seeds": 100,
        }
    )
    if size == "full":
        experiment.train.steps = 4000
        experiment.model.options.features = (300, 300, 10)
    return config
