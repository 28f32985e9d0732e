"""Full-batch gradient descent on digits, where curvature predicts the step size.

For `python -m experiments.learning_rates RUN`. `gradient_descent.py` takes minutes on two cores,
`gradient_descent.py:smoke` seconds.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(size: str = "default") -> ConfigDict:
    """An MLP 64-64-10 on 500 digits, pruned to 20 % in three rounds.

    Args:
      size: `"default"` or `"smoke"`.
    """
    config = base.ladder()
    experiment = config.experiment
    experiment.name = "gradient_descent"
    experiment.data.update(name="digits", validation=300, train_examples=500)
    experiment.model.options = ConfigDict({"features": (64, 10)})
    experiment.train.update(steps=400, eval_every=20, batch_size=500, shuffle=False)
    experiment.optimizer.update(name="sgd", learning_rate=0.5, momentum=0.0)
    experiment.prune.update(rate=0.415, levels=3)
    experiment.controls = ("random",)
    config.machine.update(driver="scan")
    if size == "smoke":
        experiment.name = "gradient_descent_smoke"
        experiment.replicates = 2
        experiment.data.train_examples = 100
        experiment.model.options.features = (16, 10)
        experiment.train.update(steps=40, eval_every=20, batch_size=100)
        experiment.prune.update(rate=0.8, levels=1)
        config.machine.chunk = 4
    elif size != "default":
        raise ValueError(f"`size` is {size!r}; it must be 'default' or 'smoke'.")
    return config
