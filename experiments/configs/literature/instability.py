"""Linear mode connectivity of ResNet-20: Frankle, Dziugaite, Roy and Carbin (2020).

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains a residual MLP on MNIST-1D.
`python -m experiments.literature` also measures the error barriers of the levels `LEVELS`.
"""

from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks
from lth_jax.report.recipes import BARRIER, Recipe

SOURCE = "Frankle et al. (2020), as others quote it"
STEPS = {"full": {"start": 0, "early": 500, "late": 2000}, "short": {"start": 0, "early": 20,
         "late": 400}}  # fmt: skip
LEVELS = {"full": (0, 8), "short": (0, 4)}
"""The dense networks, and the tickets whose barriers are measured."""


def _dense(run: str) -> Networks:
    return Networks("dense", run=run)


def _ticket(run: str, density: float = 0.168) -> Networks:
    return Networks("ticket", density, run)


RECIPE = Recipe(
    name="instability",
    title="Instability and rewinding, ResNet-20 on CIFAR-10",
    setting="SGD with Nesterov momentum 0.9 (plain in the paper), batches of 128, 63,000 steps, a "
    "rate of 0.1 that falls to a tenth at 1/2 and 3/4, weight decay 1e-4, crops and mirrored "
    "images; 20 % pruned over the whole network in each level, rewound to step 0, 500 or 2,000; 3 "
    "replicates. The barrier is the largest test error on the line between two children of one "
    "start, trained on different data orders, minus the mean of theirs; below 0.02 the start "
    "is stable. The weight decay is that of the authors' later code (facebookresearch/open_lth).",
    short="A residual MLP 40-100-100-10 on MNIST-1D, Adam at 5e-3, 1,000 steps, 36 % pruned in "
    "each level, rewound to step 0, 20 or 400, 5 replicates.",
    expected=(
        Expected(_ticket("late"), SOURCE, _ticket("start"), low=0.0),
        Expected(_ticket("late"), SOURCE, Networks("dense"), low=-0.01),
        Expected(_dense("start"), SOURCE, metric=BARRIER, low=0.02),
        Expected(_dense("late"), SOURCE, metric=BARRIER, high=0.02),
        Expected(_ticket("start"), SOURCE, metric=BARRIER, low=0.02),
        Expected(_ticket("late"), SOURCE, metric=BARRIER, high=0.02),
        Expected(_ticket("early"), SOURCE, _dense("early"), metric=BARRIER, high=0.0),
        Expected(_ticket("early"), SOURCE, metric=BARRIER, value=0.0, tolerance=0.02),
    ),
    labels={"start": "rewound to the start", "early": "rewound early", "late": "rewound late"},
)


def configs(size: str) -> dict[str, ConfigDict]:
    """A ladder for each rewind step."""
    found = {run: literature.ladder("instability", run) for run in RECIPE.labels}
    for run, config in found.items():
        experiment = config.experiment
        experiment.replicates = 3
        literature.images(experiment)
        experiment.model.name, experiment.model.options = "resnet20", ConfigDict()
        experiment.train.update(steps=63_000, eval_every=500, batch_size=128)
        literature.sgd(experiment, 0.1, 1e-4)
        experiment.prune.update(scope="globally", rate=0.2, levels=10)
        if size == literature.SHORT:
            experiment.replicates = 5
            literature.small(experiment, "mnist1d", 500)
            experiment.model.name = "residual_mlp"
            experiment.model.options = ConfigDict({"width": 100, "blocks": 1})
            experiment.train.update(steps=1000, eval_every=100, batch_size=100, crop=0, flip=False)
            experiment.optimizer.update(name="adam", learning_rate=5e-3, schedule="constant")
            experiment.optimizer.weight_decay = 0.0
            experiment.prune.update(rate=0.36, levels=4)
        experiment.rewind.step = STEPS[size][run]
    return found


get_config = literature.picker(configs)
