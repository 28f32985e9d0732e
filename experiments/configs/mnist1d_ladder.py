"""The main job: winning tickets and their controls on MNIST-1D, in about a minute on a laptop.

Sizes: `mnist1d_ladder.py` (about a minute on two cores) and `mnist1d_ladder.py:smoke`.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(size: str = "default") -> ConfigDict:
    """Densities 1 to 0.022 in seven rounds of a residual MLP 40-200-200-10.

    Args:
      size: `"default"` or `"smoke"`.
    """
    config = base.ladder()
    experiment = config.experiment
    experiment.name = "mnist1d_ladder"
    experiment.data.update(name="mnist1d", validation=500)
    experiment.data.options.data_seed = 42
    experiment.model.name = "residual_mlp"
    experiment.model.options = ConfigDict({"width": 200, "blocks": 1})
    experiment.train.update(steps=1000, eval_every=50, batch_size=100)
    experiment.optimizer.learning_rate = 1e-2
    experiment.prune.update(rate=0.42, levels=7)
    if size == "smoke":
        experiment.name = "mnist1d_smoke"
        experiment.model.options.width = 32
        experiment.train.update(steps=100, eval_every=100)
        experiment.prune.update(rate=0.6, levels=2)
        config.machine.update(
            chunk=20, driver="scan"
        )  # measuring plans would take longer than training
    elif size != "default":
        raise ValueError(f"`size` is {size!r}; it must be 'default' or 'smoke'.")
    return config
