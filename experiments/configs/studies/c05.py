"""C5, ensembles: eight tickets at a quarter of the weights against two dense networks."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """An MLP 40-64-64-10 (7,296 weights), 400 steps, three rounds to density .25."""
    common.check_size(size)
    config = common.mnist1d(seeds=16)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.steps = 400
    experiment.prune.update(rate=1 - 0.25 ** (1 / 3), levels=3)
    experiment.control_levels = (3,)
    config.study = ConfigDict(
        {
            "delta": 2.0,  # percent of the dense ensemble's negative log-likelihood
            "tickets": 8,
            "dense": 2,  # as many weights as the tickets have
            "trained": 18,  # dense networks that cost as much as the tickets and their search
            "splits": ((2, 5), (1, 3)),  # level and number: at .40 and .63, as many weights
            "small": (24, 24, 10),  # dense, with as many weights as a ticket
            "wide": (98, 98, 10),  # one dense network, with as many weights as all tickets
            "rates": (3e-3, 1e-2, 3e-2),
            "pilot_seeds": 6,
            "control_seeds": 64,
        }
    )
    if size == "full":
        common.lenet(config)
        config.study.update(small=(82, 27, 10), wide=(560, 165, 10))
    return config
