"""Channels of VGG-16 pruned early in training: You et al. (2020), early-bird tickets.

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains a small VGG on MNIST-1D.
"""

from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks
from lth_jax.report.recipes import Recipe

SOURCE, DENSITY = "You et al. (2020)", 0.5
DRAWN = {"5": 0.05, "10": 0.1, "20": 0.2, "50": 0.5}
"""Fraction of training after which the channels are chosen, by run."""
AT = {run: Networks("ticket", DENSITY, run) for run in (*DRAWN, "end")}

RECIPE = Recipe(
    name="early_bird",
    title="Early-bird tickets of VGG-16 on CIFAR-10",
    setting="SGD with Nesterov momentum 0.9 (plain in the paper), batches of 256, 160 epochs, a "
    "rate of 0.1 that falls to a tenth after 80 and 120, weight decay 1e-4, crops and mirrored "
    "images. Channels with the smallest scales of BatchNorm are removed over the whole network "
    "until half of the weights remain, after 5, 10, 20 or 50 % of training, which then continues; "
    "or at its end, after which the network trains once more. These times are fixed; the paper "
    "draws when the last five distances between masks of consecutive epochs are below 0.1. 3 "
    "replicates. The control keeps as many random channels of each layer. The weight decay is "
    "the default of the authors' code.",
    short="A VGG of 5 convolutions of 8 to 64 channels on the signals of MNIST-1D (3,500 for "
    "training), batches of 100, 2,400 steps, no augmentation, 16 replicates. At 800 steps (23 "
    "epochs) draws after a tenth of training lost 1.2 points.",
    expected=[
        Expected(AT["10"], SOURCE, AT["end"], low=-0.01),
        Expected(AT["20"], SOURCE, AT["end"], low=-0.01),
        Expected(AT["10"], SOURCE, Networks("dense", run="10"), low=-0.01),
    ],
    labels={run: f"drawn after {run} % of training" for run in DRAWN}
    | {"end": "drawn at the end of training"},
)


def configs(size: str) -> dict[str, ConfigDict]:
    """A pruned network for each time at which channels are chosen."""
    return {run: _config(run, literature.checked(size)) for run in RECIPE.labels}


def _config(run: str, size: str) -> ConfigDict:
    config = literature.ladder("early_bird", run)
    experiment = config.experiment
    experiment.replicates = 3
    literature.images(experiment)
    experiment.model.name, experiment.model.options = "vgg16", ConfigDict()
    literature.epochs(experiment, 160, 256)
    literature.sgd(experiment, 0.1, 1e-4)
    if size == literature.SHORT:
        experiment.replicates = 16
        literature.signals(experiment, "vgg", stages=((8,), (16,), (32, 32), (64,)))
        experiment.train.update(steps=2400, eval_every=120, batch_size=100)
    experiment.prune.update(schedule="one_shot", final=DENSITY, levels=1, scope="globally")
    experiment.prune.update(granularity="units", criterion="norm_scales")
    if run in DRAWN:
        experiment.controls = ("random_units",)
        experiment.rewind.step = round(DRAWN[run] * experiment.train.steps)
        experiment.prune.at_start = True
    else:
        experiment.rewind.update(what="learning_rate", state="keep")
    return config


get_config = literature.picker(configs)
