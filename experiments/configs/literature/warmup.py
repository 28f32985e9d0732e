"""VGG-16, VGG-19 and ResNet-18 at high and low rates: Frankle and Carbin (2019), section 4.

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains a small VGG on MNIST-1D.
"""

import functools
from collections.abc import Callable

import jax
import optax
from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks
from lth_jax.report.recipes import Recipe
from lth_jax.types import DENSE

SOURCE = "Frankle and Carbin (2019), section 4"
RATES = {"high": 0.1, "low": 0.01, "warmup": 0.1}
WORDS = {"high": "rate 0.1", "low": "rate 0.01", "warmup": "rate 0.1 with warm-up"}
NETS = {"vgg19": "VGG-19", "resnet18": "ResNet-18", "vgg16": "VGG-16"}
MODELS = {"resnet18": "resnet20"}
"""The paper's ResNet-18 has 20 layers and 271,000 weights; others call it ResNet-20."""
VGG = (112_480, 64)
STEPS = {"vgg19": VGG, "resnet18": (30_000, 128), "vgg16": VGG}
"""Steps of training, and the size of batches."""


def _schedule(
    drops: tuple[float, float], warmup: float = 0.0
) -> Callable[[int], Callable[[jax.typing.ArrayLike], jax.Array]]:
    """`steps -> schedule`: a tenth after each of two shares of the steps, after a linear rise."""

    def make(steps: int) -> Callable[[jax.typing.ArrayLike], jax.Array]:
        fall = optax.piecewise_constant_schedule(1.0, {round(one * steps): 0.1 for one in drops})
        rise = optax.linear_schedule(0.0, 1.0, max(1, round(warmup * steps)))
        return lambda step: (rise(step) if warmup else 1.0) * fall(step)

    return make


vgg = _schedule((1 / 2, 3 / 4))
vgg_warmup = _schedule((1 / 2, 3 / 4), 10_000 / VGG[0])
resnet = _schedule((2 / 3, 5 / 6))
resnet_warmup = _schedule((2 / 3, 5 / 6), 2 / 3)


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


def _numbers() -> list[Expected]:
    """Accuracies of the paper, and the smallest tickets that are as accurate as dense networks."""
    at = functools.partial(_at, net="resnet18")
    small = functools.partial(_at, "warmup", net="vgg19", density=0.015)
    return [
        Expected(at("high", DENSE, density=1.0), SOURCE, value=0.905, tolerance=0.01),
        Expected(at("warmup", density=0.271), SOURCE, value=0.905, tolerance=0.01),
        Expected(at("low", density=0.271), SOURCE, value=0.895, tolerance=0.01),
        Expected(small(), SOURCE, small(DENSE), low=-0.005, only_full=True),
    ]


RECIPE = Recipe(
    name="warmup",
    title="VGG-19 and ResNet-18 with and without warm-up, on CIFAR-10",
    setting="SGD with momentum 0.9, a rate of 0.1, of 0.01, or of 0.1 (ResNet-18: 0.03) after "
    "linear warm-up of 10,000 (20,000) steps; it falls to a tenth at 1/2 and 3/4 (2/3 and 5/6) of "
    "all 112,480 (30,000) steps; batches of 64 (128), weight decay 1e-4, crops and mirrored "
    "images; a level prunes 20 % of the convolutions together, not the output layer, and rewinds "
    "to the initialisation; 3 replicates, reinitialised controls. The paper's ResNet-18 has 20 "
    "layers and 271,000 weights. VGG-16, which the paper lacks, trains as VGG-19. The weight decay "
    "is that of the authors' later code (facebookresearch/open_lth).",
    short="A VGG of 5 convolutions of 8 to 64 channels on the signals of MNIST-1D (3,500 for "
    "training), batches of 64, 1,200 steps, of which 107 warm up, no augmentation, each level "
    "prunes as much as three levels of the paper, 12 replicates.",
    expected=[
        *_orders("vgg19", 0.134),
        *_orders("resnet18", 0.328, only_full=True),
        *_numbers(),
    ],
    labels={
        f"{net}-{run}": f"{name}, {words}"
        for net, name in NETS.items()
        for run, words in WORDS.items()
    }
    | {"resnet18-warmup": "ResNet-18, rate 0.03 with warm-up"},
)


def configs(size: str) -> dict[str, ConfigDict]:
    """Each network at each rate."""
    nets = ("vgg19",) if size == literature.SHORT else tuple(NETS)
    return {f"{net}-{run}": _config(net, run, size) for net in nets for run in RATES}


def _config(net: str, run: str, size: str) -> ConfigDict:
    config = literature.ladder("warmup", f"{net}-{run}")
    experiment = config.experiment
    steps, batch = STEPS[net]
    family = "resnet" if net == "resnet18" else "vgg"
    schedule = (
        f"experiments.configs.literature.warmup:{family}{'_warmup' if run == 'warmup' else ''}"
    )
    rate = 0.03 if (net, run) == ("resnet18", "warmup") else RATES[run]
    experiment.replicates = 3
    experiment.controls = ("reinit",)
    literature.images(experiment)
    experiment.model.name, experiment.model.options = MODELS.get(net, net), ConfigDict()
    levels = 12 if family == "resnet" else 19
    experiment.prune.update(scope="globally", rate=0.2, levels=levels, groups=("*Conv_*",))
    if size == literature.SHORT:
        steps, batch = 1200, 64
        experiment.replicates = 12
        literature.signals(experiment, "vgg", stages=((8,), (16,), (32, 32), (64,)))
        experiment.prune.update(rate=1 - 0.8**3, levels=3)
        experiment.control_levels = (3,)
    experiment.train.update(steps=steps, eval_every=max(steps // 100, 40), batch_size=batch)
    experiment.optimizer.update(
        name="sgd", learning_rate=rate, weight_decay=1e-4, schedule=schedule
    )
    return config


get_config = literature.picker(configs)
