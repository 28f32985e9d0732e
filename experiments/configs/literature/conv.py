"""Conv-2, Conv-4 and Conv-6 on CIFAR-10: Frankle and Carbin (2019), sections 3 and 4.

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains narrow networks on 150 digits.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks
from lth_jax.report.recipes import Recipe

STOP, ACCURACY = "early_stop_step", "test_accuracy_early_stop"


class Net(NamedTuple):
    """A network with its training, and the paper's numbers.

    Attributes:
      label: its name.
      steps: of each training.
      rate: of Adam.
      conv: fraction of the convolutions' weights that a level prunes.
      fastest: density of the earliest stop, and how many times earlier than dense it is.
      best: density of the highest accuracy, and its gain over the dense network in points.
      dropout: gain of dense networks by dropout in points.
    """

    label: str
    steps: int
    rate: float
    conv: float
    fastest: tuple[float, float]
    best: tuple[float, float]
    dropout: float


NETS = {
    "conv2": Net("Conv-2", 20_000, 2e-4, 0.1, (0.088, 3.5), (0.046, 3.4), 2.1),
    "conv4": Net("Conv-4", 25_000, 3e-4, 0.1, (0.092, 3.5), (0.111, 3.5), 3.0),
    "conv6": Net("Conv-6", 30_000, 3e-4, 0.15, (0.151, 2.5), (0.264, 3.3), 2.4),
}
MIDDLE = {"conv2": 0.137, "conv4": 0.18, "conv6": 0.184}
"""Densities of both sizes at which tickets are compared with dense networks and controls."""
SMALL = ((16, 16), (32, 32), (64, 64))
"""Widths of the convolutions at short size."""


def _expected(run: str, net: Net) -> list[Expected]:
    source, dense = "Frankle and Carbin (2019), figure 5", Networks("dense", run=run)
    (fast, times), (best, gain) = net.fastest, net.best
    middle, reinit = (Networks(arm, MIDDLE[run], run) for arm in ("ticket", "reinit"))
    return [
        Expected(middle, source, reinit, ACCURACY, low=0.0),
        Expected(middle, source, dense, ACCURACY, low=0.0),
        Expected(middle, source, dense, STOP, high=0.0, relative=True),
        Expected(reinit, source, middle, STOP, low=0.0, relative=True),
        Expected(
            Networks("ticket", fast, run), source, dense, STOP, 1 / times - 1, 0, 0.1, relative=True
        ),
        Expected(Networks("ticket", best, run), source, dense, ACCURACY, gain / 100, 0, 0.01),
        Expected(Networks("ticket", 0.02, run), source, dense, ACCURACY, low=0.0, only_full=True),
    ]


def _expected_of_dropout(run: str, net: Net) -> list[Expected]:
    source, own = "Frankle and Carbin (2019), section 3, approximate", f"{run}-dropout"
    dense, usual = Networks("dense", run=own), Networks("dense", run=run)
    middle, reinit = (Networks(arm, MIDDLE[run], own) for arm in ("ticket", "reinit"))
    return [
        Expected(dense, source, usual, ACCURACY, net.dropout / 100, 0, 0.015),
        Expected(middle, source, reinit, ACCURACY, low=0.0),
        Expected(middle, source, dense, ACCURACY, low=0.0),
    ]


RECIPE = Recipe(
    name="conv",
    title="Conv-2, Conv-4, Conv-6 on CIFAR-10",
    setting="Adam at 2e-4, 3e-4 and 3e-4, batches of 60, 20,000, 25,000 and 30,000 steps; a level "
    "prunes 10, 10 and 15 % of each convolution, 20 % of each hidden dense layer and 10 % of the "
    "output layer and rewinds to the initialisation; 5 replicates, also with dropout of 1/2.",
    short="The same networks with 16, 32 and 64 channels and hidden layers of 256 on 150 digits of "
    "8 × 8 pixels, Adam at 1e-3, 600 steps, each level prunes as much as three levels of "
    "the paper, 12 replicates. An earlier short size on the signals of MNIST-1D, where tickets "
    "stayed 2 to 6 points below dense at every width and rate tried, was dropped: 11 of its 18 "
    "findings held and 4 did not.",
    expected=[
        one
        for make in (_expected, _expected_of_dropout)
        for run, net in NETS.items()
        for one in make(run, net)
    ],
    labels={run: net.label for run, net in NETS.items()}
    | {f"{run}-dropout": f"{net.label} with dropout" for run, net in NETS.items()},
)


def configs(size: str) -> dict[str, ConfigDict]:
    """A ladder with reinitialised controls for each network, without and with dropout."""
    found = {run: _ladder(run, net, size) for run, net in NETS.items()}
    for run, net in NETS.items():
        found[f"{run}-dropout"] = config = _ladder(f"{run}-dropout", net, size)
        config.experiment.model.options["dropout"] = 0.5
    return found


def _ladder(run: str, net: Net, size: str) -> ConfigDict:
    config = literature.ladder("conv", run)
    experiment = config.experiment
    experiment.controls = ("reinit",)
    experiment.data.update(name="cifar10", validation=5000)
    experiment.model.name = run.partition("-")[0]
    experiment.model.options = ConfigDict()
    experiment.train.update(steps=net.steps, eval_every=100, batch_size=60)
    experiment.optimizer.learning_rate = net.rate
    every = 1
    experiment.prune.update(scope="layerwise", levels=22)
    if size == literature.SHORT:
        every = 3
        depth = list(NETS).index(run.partition("-")[0]) + 1
        literature.small(experiment)
        experiment.data.train_examples = 150
        experiment.model.name = "convnet"
        experiment.model.options = ConfigDict({"stages": SMALL[:depth], "hidden": (256, 256)})
        experiment.replicates = 12
        experiment.train.update(steps=600, eval_every=20)
        experiment.optimizer.learning_rate = 1e-3
        experiment.prune.levels = 3
        experiment.control_levels = (3,)
    experiment.prune.rate = 1 - 0.8**every
    experiment.prune.layer_rates = ConfigDict(
        {"*Conv_*": 1 - (1 - net.conv) ** every, "*Dense_2/*": 1 - 0.9**every}
    )
    return config


get_config = literature.picker(configs)
