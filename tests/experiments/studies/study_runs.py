"""A runner in a folder of its own, and studies made tiny, for the tests of all studies."""

import contextlib

from experiments.configs import base
from experiments.studies.study_runner import StudyRunner


@contextlib.contextmanager
def runner_in(folder):
    """A runner whose plans are fixed, not measured."""
    machine = base.ladder().machine
    machine.update(workdir=str(folder), chunk=4, driver="scan", devices=1)
    machine.update(progress=False, compilation_cache=False)
    yield StudyRunner(machine)


def tiny(config, replicates=2):
    """A study on MNIST-1D with few seeds, few examples and few steps."""
    config.experiment.replicates = replicates
    config.experiment.model.options.features = (12, 12, 10)
    config.experiment.train.update(steps=20, eval_every=20, batch_size=16, share=64)
    config.experiment.data.update(validation=40)
    config.experiment.data.options.update(train=400, test=60)
    return config
