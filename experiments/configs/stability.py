"""Instability analysis on MNIST-1D: the step from which training is stable to the data order.

For `python -m experiments.stability`, which runs this ladder at several rewind steps.
`stability.py` takes minutes on two cores, `stability.py:smoke` seconds.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(size: str = "default") -> ConfigDict:
    """A residual MLP 40-100-100-10, pruned to 6 % in four rounds; no controls.

    Args:
      size: `"default"` or `"smoke"`.
    """
    config = base.ladder()
    experiment = config.experiment
    experiment.name = "stability"
    experiment.data.update(name="mnist1d", validation=500)
    experiment.data.options.data_seed = 42
    experiment.model.name = "residual_mlp"
    experiment.model.options = ConfigDict({"width": 100, "blocks": 1})
    experiment.train.update(steps=1000, eval_every=100, batch_size=100)
    experiment.optimizer.learning_rate = 5e-3
    experiment.prune.update(rate=0.5, levels=4)
    experiment.controls = ()
    if size == "smoke":
        experiment.name = "stability_smoke"
        experiment.replicates = 3
        experiment.model.options.width = 32
        experiment.train.update(steps=100, eval_every=50)
        experiment.prune.update(rate=0.6, levels=1)
        config.machine.update(
            chunk=3, driver="scan"
        )  # measuring plans would take longer than training
    elif size != "default":
        raise ValueError(f"`size` is {size!r}; it must be 'default' or 'smoke'.")
    return config
