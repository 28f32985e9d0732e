"""The lottery ticket hypothesis itself: tickets beside all their controls."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 400 steps, density .22."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=400, eval_every=50)
    experiment.prune.levels = 3
    experiment.controls = ("reinit", "shuffle", "random")
    experiment.control_levels = (3,)
    config.study = ConfigDict(
        {
            "delta": 1.0,  # points of test accuracy over each control
            "margin": 1.0,  # points that may be lost against the dense network
            "small": (22, 22, 10),  # dense, with as many weights as a ticket
            "rates": (3e-3, 1e-2, 3e-2),
            "pilot_seeds": 4,
            "late": 50,  # the step of the other rewinding
            "children": 8,  # seeds whose stability is measured
            "points": 5,  # on the line between two children
            "control_seeds": 64,
        }
    )
    if size == "full":
        common.lenet(config)
        config.study.update(small=(71, 22, 10), children=32, points=30, late=1000)
    return config
