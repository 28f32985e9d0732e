"""ResNet-56 on CIFAR-10: weight and learning-rate rewinding of Renda et al. (2020).

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains a ResNet-14 on MNIST-1D.
"""

from ml_collections import ConfigDict

from experiments.configs import literature
from experiments.configs.literature import _renda as renda
from lth_jax.report.recipes import Recipe

SMALL = dict(blocks=(2, 2, 2), width=4)
TABLE = {
    "wr": {
        **{1: 93.45, 0.512: 93.73, 0.328: 93.73, 0.210: 93.61, 0.134: 93.62, 0.107: 93.39},
        0.023: 90.91,
    },
    "lrr": {
        **{0.512: 93.79, 0.328: 93.88, 0.210: 93.70, 0.134: 93.50, 0.107: 93.56},
        0.023: 91.26,
    },
}
RECIPE = Recipe(
    name="resnet56",
    title="ResNet-56 on CIFAR-10",
    setting=renda.SETTING,
    short="A ResNet-14 of width 4 on the signals of MNIST-1D (3,500 for training), batches of 100, "
    "728 steps, no augmentation, each level prunes as much as three levels of the paper, 5 "
    "replicates.",
    expected=[
        *renda.curves(TABLE, renda.SOURCE, 0.21),
        *renda.shapes(0.134, reinit=False),
    ],
    labels=renda.RUNS,
)


def configs(size: str) -> dict[str, ConfigDict]:
    """The runs of the recipe."""
    found = renda.configs("resnet56", size, "resnet", SMALL, ())
    if size != literature.SHORT:
        for config in found.values():
            config.experiment.prune.levels = 17
    return found


get_config = literature.picker(configs)
