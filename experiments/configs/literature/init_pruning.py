"""Pruning at initialisation: Tanaka et al. (2020) and Frankle et al. (2021), VGG-16 on CIFAR-10.

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains a small VGG on digits.
"""

from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks, accuracies
from lth_jax.report.recipes import Recipe

TANAKA = "Tanaka et al. (2020), the authors' data"
FRANKLE = "Frankle et al. (2021)"
TABLE = {
    "random": (91.1, 79.1, 49.1, 10.0),
    "magnitude": (93.1, 89.8, 10.0, 10.0),
    "snip": (92.3, 89.1, 84.6, 76.3),
    "grasp": (91.8, 87.5, 82.7, 70.9),
    "synflow": (93.3, 90.1, 86.8, 80.4),
}
LABELS = {
    **{"random": "random", "magnitude": "magnitude", "snip": "SNIP", "grasp": "GraSP"},
    **{"synflow": "SynFlow", "trained": "magnitude after training"},
}
DENSITIES = {"full": (0.1, 0.01, 0.00316, 0.001), "short": (0.1, 0.03, 0.01)}


def _at(run: str, density: float, arm: str = "ticket") -> Networks:
    return Networks(arm, density, run)


RECIPE = Recipe(
    name="init_pruning",
    title="Pruning at initialisation, VGG-16 on CIFAR-10",
    setting="VGG-16 with BatchNorm, SGD with Nesterov momentum 0.9, batches of 128, 160 epochs, a "
    "rate of 0.1 that falls to a tenth at 1/2 and 3/4 (in the paper after 60 and 120 epochs), "
    "weight decay 1e-4, crops and mirrored images; one shot before training over the whole "
    "network, scored on 100 examples; SynFlow prunes in 100 rounds; 3 replicates. The controls "
    "shuffle each mask within its layers or draw new initial weights. The weight decay is that of "
    "the authors' runs on CIFAR-100 (ganguli-lab/Synaptic-Flow).",
    short="A VGG of 5 convolutions of 8 to 64 channels on 400 digits of 8 × 8 pixels, batches of "
    "64, 300 steps, no augmentation, 5 replicates.",
    expected=[
        *accuracies({1: 93.5}, TANAKA, run="random"),
        *(
            one
            for run, values in TABLE.items()
            for one in accuracies(
                dict(zip(DENSITIES["full"], values, strict=True)), TANAKA, run=run, tolerance=1.0
            )
        ),
        Expected(_at("synflow", 0.01), TANAKA, _at("magnitude", 0.01), low=0.0),
        Expected(_at("synflow", 0.01), TANAKA, _at("random", 0.01), low=0.0),
        Expected(_at("snip", 0.01), TANAKA, _at("random", 0.01), low=0.0),
        Expected(_at("synflow", 0.01), TANAKA, _at("grasp", 0.01), low=0.0),
        Expected(_at("trained", 0.1), FRANKLE, _at("snip", 0.1), low=0.0),
        Expected(_at("snip", 0.1, "shuffle"), FRANKLE, _at("snip", 0.1), low=-0.01),
        Expected(_at("snip", 0.1, "reinit"), FRANKLE, _at("snip", 0.1), low=-0.01),
        Expected(_at("synflow", 0.1, "reinit"), FRANKLE, _at("synflow", 0.1), low=-0.01),
    ],
    labels=LABELS,
)


def configs(size: str) -> dict[str, ConfigDict]:
    """Each criterion at each density, in one shot; and one shot after training."""
    densities = DENSITIES[literature.checked(size)]
    return {
        f"{run}@{density}": _config(run, density, size) for run in LABELS for density in densities
    }


def _config(run: str, density: float, size: str) -> ConfigDict:
    config = literature.ladder("init_pruning", f"{run}@{density}")
    experiment = config.experiment
    experiment.replicates = 3
    literature.images(experiment)
    experiment.model.name, experiment.model.options = "vgg16", ConfigDict()
    literature.epochs(experiment, 160, 128)
    literature.sgd(experiment, 0.1, 1e-4)
    experiment.prune.update(schedule="one_shot", final=density, levels=1, scope="globally")
    trained = run == "trained"
    experiment.prune.update(criterion="magnitude" if trained else run, at_start=not trained)
    experiment.prune.examples = 100 if run in ("snip", "grasp") else 0
    experiment.prune.rounds = 100 if run == "synflow" else 1
    if density == 0.1 and not trained:
        experiment.controls = ("reinit", "shuffle")
    if size == literature.SHORT:
        experiment.replicates = 5
        literature.small(experiment)
        experiment.data.train_examples = 400
        experiment.model.name = "vgg"
        experiment.model.options = ConfigDict({"stages": ((8,), (16,), (32, 32), (64,))})
        experiment.train.update(steps=300, eval_every=50, batch_size=64, crop=0, flip=False)
    return config


get_config = literature.picker(configs)
