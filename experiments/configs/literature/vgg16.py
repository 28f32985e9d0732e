"""VGG-16 on CIFAR-10: rewinding, fine-tuning and reinitialisation of Renda et al. (2020).

`:full` needs CIFAR-10 in `machine.manual_dir`; `:short` trains a small VGG on MNIST-1D.
"""

from ml_collections import ConfigDict

from experiments.configs import literature
from experiments.configs.literature import _renda as renda
from lth_jax.measures.expected import accuracies
from lth_jax.report.recipes import Recipe

RECIPE = Recipe(
    name="vgg16",
    title="VGG-16 on CIFAR-10",
    setting=renda.SETTING + "One-shot tickets of trained networks are reinitialised.",
    short="A VGG of 5 convolutions of 8 to 64 channels on the signals of MNIST-1D (3,500 for "
    "training), batches of 100, 728 steps, no augmentation, each level prunes as much as three "
    "levels of the paper, 12 replicates: with 5, intervals were as wide as the tolerances. With "
    "half as many channels the dense network loses 3 points.",
    expected=[
        *accuracies(
            {1: 93.3}, f"{renda.SOURCE}, approximate", run="wr", spread=0.19, tolerance=1.0
        ),
        *renda.shapes(0.134, reinit=True),
    ],
    labels=renda.ONE_SHOT,
)


def configs(size: str) -> dict[str, ConfigDict]:
    """The runs of the recipe."""
    small = {"stages": ((8,), (16,), (32, 32), (64,))}
    return renda.configs("vgg16", size, "vgg", small, (0.134,), replicates=12)


get_config = literature.picker(configs)
