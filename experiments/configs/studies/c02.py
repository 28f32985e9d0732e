"""C2, at least one winner: XOR networks of rising width, sums of subsets, masks of MNIST-1D."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """Four hundred XOR networks of each width; random and learned masks of an MLP."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    experiment = config.experiment
    experiment.train.steps = 500
    experiment.prune.update(criterion="random", schedule="one_shot", levels=1)
    experiment.controls = ()
    config.study = ConfigDict(
        {
            "delta": 0.3,  # rise of the chance that some mask wins
            "factor": 100.0,  # by which the chance of one mask must at least fall
            "seeds": 400,
            "hidden": (2, 4, 8, 16),
            "densities": (0.5, 0.2, 0.1, 0.05),  # of random masks that are trained
            "margin": 1.0,  # points of test accuracy within which a random mask wins
            "popup": {
                "seeds": 16,
                "widths": (16, 64, 256),
                "density": 0.5,
                "steps": 500,
                "rate": 0.02,
            },
            "control_seeds": 200,
        }
    )
    if size == "full":
        common.lenet(config)
        config.study.hidden = (2, 4, 8, 16, 32, 64)
        config.study.popup.update(widths=(16, 64, 256, 1024, 4096), steps=5000)
        config.study.setup = (
            "XOR as on a laptop, to width 64. " + config.study.setup.split(";")[0] + "; learned "
            "masks of one hidden layer to width 4,096."
        )
    return config
