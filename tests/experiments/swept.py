"""The tiny ladder with a sweep of its own."""

from tests.experiments import tiny


def get_config():
    config = tiny.get_config()
    config.experiment.prune.levels = 1
    config.experiment.controls = ("reinit",)
    return config


def get_sweep(h):
    return h.sweep("learning_rate", [1e-3, 1e-2])
