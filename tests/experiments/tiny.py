"""A ladder that trains in a second or two, for the tests of whole runs."""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config() -> ConfigDict:
    config = base.ladder()
    experiment = config.experiment
    experiment.name = "tiny"
    experiment.replicates = 2
    experiment.data.update(validation=100, train_examples=200)
    experiment.model.options = ConfigDict({"features": (16, 10)})
    experiment.train.update(steps=30, eval_every=10, batch_size=20)
    experiment.prune.update(rate=0.5, levels=2)
    config.machine.update(chunk=2, driver="scan", compilation_cache=False)
    return config
