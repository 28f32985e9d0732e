"""Sparse training of WRN-22-2 on CIFAR-10: Evci et al. (2020) and Peste et al. (2021).

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains a WRN-10-1 on MNIST-1D.
"""

import optax
from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks, accuracies
from lth_jax.report.recipes import Recipe

EVCI = "Evci et al. (2020), WRN-22-2 on CIFAR-10"
PESTE = "Peste et al. (2021), shown for ImageNet"
LABELS = {
    **{"static": "static random mask", "set": "SET", "rigl": "RigL", "rigl-erk": "RigL, ERK"},
    **{"gradual": "gradual pruning", "acdc": "AC/DC"},
}
METHODS = {
    **{"static": "static", "set": "sparse_evolution", "rigl": "rigl", "rigl-erk": "rigl"},
    **{"gradual": "gradual", "acdc": "alternating"},
}
TABLE = {
    "static": (91.2, 0.16),
    "set": (92.7, 0.28),
    "rigl": (92.6, 0.10),
    "rigl-erk": (93.1, 0.09),
    "gradual": (93.2, 0.27),
}
DENSITIES = {"full": (0.2, 0.05), "short": (0.05,)}


_HERE = "experiments.configs.literature.sparse_training"


def fifths(steps: int) -> optax.Schedule:
    """1, and a fifth of the value before after each 30,000 steps."""
    return optax.piecewise_constant_schedule(1.0, dict.fromkeys(range(30_000, steps, 30_000), 0.2))


def _at(run: str) -> Networks:
    return Networks("ticket", 0.05, run)


RECIPE = Recipe(
    name="sparse_training",
    title="Sparse training of WRN-22-2 on CIFAR-10",
    setting="SGD with Nesterov momentum 0.9, batches of 128, 97,656 steps, a rate of 0.1 that "
    "falls to a fifth every 30,000, weight decay 5e-4, crops and mirrored images; 20 and 5 % of "
    "the weights kept, the same density in all layers except for ERK, gradual pruning and AC/DC "
    "(over the whole network); 3 replicates.",
    short="A WRN-10-1 of width 8 on the signals of MNIST-1D (3,500 for training), batches of 100, "
    "700 steps, a rate that falls to a tenth at 1/2 and 3/4, no augmentation, 5 % of the weights "
    "kept (the paper's numbers are for 20 %), 5 replicates.",
    expected=[
        *(
            one
            for run, (value, spread) in TABLE.items()
            for one in accuracies({0.2: value}, EVCI, run=run, spread=spread)
        ),
        Expected(_at("set"), EVCI, _at("static"), low=0.0),
        Expected(_at("rigl"), EVCI, _at("static"), low=0.0),
        Expected(_at("rigl-erk"), EVCI, _at("rigl"), low=0.0),
        Expected(_at("gradual"), EVCI, _at("static"), low=0.0),
        Expected(_at("acdc"), PESTE, _at("static"), low=0.0),
    ],
    labels=LABELS,
)


def configs(size: str) -> dict[str, ConfigDict]:
    """Each method at each density."""
    densities = DENSITIES[literature.checked(size)]
    return {f"{run}@{kept}": _config(run, kept, size) for run in LABELS for kept in densities}


def _config(run: str, density: float, size: str) -> ConfigDict:
    config = literature.ladder("sparse_training", f"{run}@{density}")
    experiment = config.experiment
    experiment.replicates = 3
    literature.images(experiment)
    experiment.model.name = "wide_resnet"
    experiment.model.options = ConfigDict({"blocks": (3, 3, 3), "width": 16, "widening": 2})
    experiment.train.update(steps=97_656, eval_every=390, batch_size=128)
    schedule = "step" if size == literature.SHORT else f"{_HERE}:fifths"
    literature.sgd(experiment, 0.1, 5e-4, schedule=schedule)
    scopes = {"rigl-erk": "erk", "gradual": "globally", "acdc": "globally"}
    experiment.prune.update(schedule="one_shot", final=density, levels=1, criterion="random")
    experiment.prune.update(scope=scopes.get(run, "layerwise"), method=METHODS[run])
    if size == literature.SHORT:
        experiment.replicates = 5
        literature.signals(experiment, "wide_resnet", blocks=(1, 1, 1), width=8)
        experiment.train.update(steps=700, eval_every=100, batch_size=100)
    return config


get_config = literature.picker(configs)
