"""VGG-16, VGG-19 and ResNet-18 at high and low rates: Frankle and Carbin (2019), section 4.

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains a small VGG on MNIST-1D.
"""

import functools

from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks
from lth_jax.report.recipes import Recipe
from lth_jax.types import DENSE

SOURCE = "Frankle and Carbin (2019), section 4"
RATES = {"high": 0.1, "low": 0.01, "warmup": 0.1}
WORDS = {"high": "rate 0.1", "low": "rate 0.01", "warmup": "rate 0.1 with warm-up"}
NETS = {"vgg19": "VGG-19", "resnet18": "ResNet-18", "vgg16": "VGG-16"}
VGG = (112_000, 10_000, 64)
STEPS = {"vgg19": VGG, "resnet18": (30_000, 20_000, 128), "vgg16": VGG}
"""Steps of training and of warm-up, and the size of batches."""


def _at(run: str, arm: str = "ticket", *, net: str, density: float) -> Networks:
    return Networks(arm, 1.0 if arm == DENSE else density, f"{net}-{run}")


def _orders(net: str, density: float, *, only_full: bool = False) -> list[Expected]:
    """Tickets at a low rate or after warm-up beside controls, a high rate, and dense networks."""
    at = functools.partial(_at, net=net, density=density)
    found = [
        Expected(at("low"), SOURCE, at("low", "reinit"), low=0.0),
        Expected(at("warmup"), SOURCE, at("warmup", "reinit"), low=0.0),
        Expected(at("warmup"), SOURCE, at("high"), low=0.0),
        Expected(at("low"), SOURCE, at("low", DENSE), low=-0.01),
        Expected(at("warmup"), SOURCE, at("warmup", DENSE), low=-0.01),
    ]
    return [one._replace(only_full=only_full) for one in found]


RECIPE = Recipe(
    name="warmup",
    title="VGG-19 and ResNet-18 with and without warm-up, on CIFAR-10",
    setting="SGD with Nesterov momentum 0.9 (plain in the paper), a rate of 0.1, of 0.01, or of "
    "0.1 (ResNet-18: 0.03) after linear warm-up of 10,000 (20,000) steps; it falls to a tenth at "
    "1/2 and 3/4 of the steps after warm-up; 112,000 (30,000) steps, batches of 64 (128), weight "
    "decay 1e-4, crops and mirrored images; 20 % pruned over the whole network in each level, "
    "rewound to the initialisation; 3 replicates, reinitialised controls. VGG-16, which the paper "
    "does not have, trains as VGG-19. Weight decay and the steps of warm-up and of the drops were "
    "not compared with the paper.",
    short="A VGG of 5 convolutions of 8 to 64 channels on the signals of MNIST-1D (3,500 for "
    "training), batches of 64, 600 steps of which 150 warm up, no augmentation, one level for "
    "three of the paper's, 5 replicates.",
    expected=[*_orders("vgg19", 0.134), *_orders("resnet18", 0.328, only_full=True)],
    labels={f"{net}-{run}": f"{name}, {WORDS[run]}" for net, name in NETS.items() for run in WORDS},
)


def configs(size: str) -> dict[str, ConfigDict]:
    """Each network at each rate."""
    nets = ("vgg19",) if size == literature.SHORT else tuple(NETS)
    return {f"{net}-{run}": _config(net, run, size) for net in nets for run in RATES}


def _config(net: str, run: str, size: str) -> ConfigDict:
    config = literature.ladder("warmup", f"{net}-{run}")
    experiment = config.experiment
    steps, warmup, batch = STEPS[net]
    rate = 0.03 if (net, run) == ("resnet18", "warmup") else RATES[run]
    experiment.replicates = 3
    experiment.controls = ("reinit",)
    literature.images(experiment)
    experiment.model.name, experiment.model.options = net, ConfigDict()
    experiment.prune.update(scope="globally", rate=0.2, levels=12)
    if size == literature.SHORT:
        steps, warmup, batch = 600, 150, 64
        experiment.replicates = 5
        literature.signals(experiment, "vgg", stages=((8,), (16,), (32, 32), (64,)))
        experiment.prune.update(rate=1 - 0.8**3, levels=3)
        experiment.control_levels = (3,)
    experiment.train.update(steps=steps, eval_every=max(steps // 100, 40), batch_size=batch)
    literature.sgd(experiment, rate, 1e-4, warmup=warmup if run == "warmup" else 0)
    return config


get_config = literature.picker(configs)
