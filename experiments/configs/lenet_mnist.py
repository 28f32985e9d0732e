"""LeNet-300-100 on MNIST: the experiment of Frankle and Carbin (2019), section 2.

MNIST's four idx files are read from `machine.manual_dir`. 55,000 training and 5,000 validation
examples, Gaussian Glorot, batches of 60, Adam at 1.2e-3; each level prunes 20 % of every hidden
layer and 10 % of the output layer; rewound to the initialisation.

`lenet_mnist.py` is shortened to 5,000 steps per level and 3 replicates, down to 3.6 %;
`lenet_mnist.py:full` is the recipe: 50,000 steps, 5 replicates, down to 1.9 %.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(size: str = "short") -> ConfigDict:
    """The ladder of LeNet-300-100.

    Args:
      size: `"short"` or `"full"`.
    """
    config = base.ladder()
    experiment = config.experiment
    experiment.name = "lenet_mnist"
    experiment.replicates = 3
    experiment.data.update(name="mnist", validation=5000)
    experiment.model.name = "mlp"
    experiment.model.options = ConfigDict({"features": (300, 100, 10)})
    experiment.train.update(steps=5000, eval_every=100, batch_size=60)
    experiment.optimizer.learning_rate = 1.2e-3
    experiment.prune.update(scope="layerwise", rate=0.2, levels=15)
    experiment.prune.layer_rates = ConfigDict({"Dense_2/*": 0.1})
    experiment.controls = ("reinit",)
    if size == "full":
        experiment.replicates = 5
        experiment.train.steps = 50_000
        experiment.prune.levels = 18
    elif size != "short":
        raise ValueError(f"`size` is {size!r}; it must be 'short' or 'full'.")
    return config
