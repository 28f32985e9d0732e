"""ResNet-20 on CIFAR-10: rewinding, fine-tuning and reinitialisation of Renda et al. (2020).

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains a ResNet-8 on MNIST-1D.
"""

from ml_collections import ConfigDict

from experiments.configs import literature
from experiments.configs.literature import _renda as renda
from lth_jax.report.recipes import Recipe

SMALL = dict(blocks=(1, 1, 1), width=8)
TABLE = {
    "wr": {1: 91.72, 0.512: 91.94, 0.328: 91.88, 0.210: 91.69, 0.134: 91.25, 0.107: 90.97},
    "wr-init": {0.512: 90.59, 0.328: 90.01, 0.210: 89.21, 0.134: 87.55, 0.107: 86.67},
    "lrr": {0.512: 92.29, 0.328: 92.12, 0.210: 91.89, 0.134: 91.47, 0.107: 91.01},
    "reinit": {0.512: 90.48, 0.328: 89.70, 0.210: 88.49, 0.134: 87.46, 0.107: 86.88},
}
RECIPE = Recipe(
    name="resnet20",
    title="ResNet-20 on CIFAR-10",
    setting=renda.SETTING + "One-shot tickets of trained networks are reinitialised.",
    short="A ResNet-8 of width 8 on the signals of MNIST-1D (3,500 for training), batches of 100, "
    "728 steps, no augmentation, each level prunes as much as three levels of the paper, 5 "
    "replicates. An earlier short size, on 400 digits, decided one of six findings.",
    expected=[
        *renda.curves(TABLE, renda.SOURCE, 0.23),
        *renda.shapes(0.134, reinit=True),
    ],
    labels=renda.ONE_SHOT,
)


def configs(size: str) -> dict[str, ConfigDict]:
    """The runs of the recipe."""
    kept = (0.134,) if size == literature.SHORT else tuple(d for d in TABLE["reinit"])
    return renda.configs("resnet20", size, "resnet", SMALL, kept)


get_config = literature.picker(configs)
