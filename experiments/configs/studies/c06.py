"""C6, the Hessian and the learning rate: the best rate of masks beside the dense network's."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 300 steps of plain gradient descent on batches, density .047."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=300, eval_every=150)
    experiment.optimizer.update(name="sgd", learning_rate=0.5, momentum=0.0)
    experiment.prune.levels = 6
    experiment.control_levels = (6,)
    config.study = ConfigDict(
        {
            "delta": 0.5,  # octaves of learning rate
            "rates": tuple(2.0 ** (power / 2) for power in range(-5, 5)),
            "slow": 0.125,  # the other rate at which masks are found
            "examples": 1000,  # of a seed's own, in its Hessian
            "control_seeds": 64,
        }
    )
    if size == "full":
        common.lenet(config)
        experiment.optimizer.update(name="sgd", learning_rate=0.1, momentum=0.0)
        config.study.rates = tuple(2.0 ** (power / 2) for power in range(-14, 3))
        config.study.slow = 0.025
        config.study.setup = config.study.setup.replace("Adam", "plain SGD at 17 rates")
    return config
