"""ResNet-50 on ImageNet: iterative magnitude pruning with rewinding, public TPU code of 2023.

`:full` needs ImageNet in `machine.manual_dir`; `:short` trains a small network on MNIST-1D.
"""

from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks, accuracies
from lth_jax.report.recipes import Recipe

SOURCE = "github.com/cs-giung/lottery-ticket-imagenet (2023)"
TABLE = (
    *(76.06, 76.33, 76.45, 76.48, 76.58, 76.48, 76.53, 76.54, 76.23, 76.13, 75.87, 75.53, 75.21),
    *(74.77, 74.00, 73.36, 72.62, 71.51, 70.52),
)
"""Top-1 accuracy by level; each level prunes 20 % of the convolutions' weights."""

RECIPE = Recipe(
    name="resnet50",
    title="ResNet-50 on ImageNet",
    setting="SGD with momentum 0.9, batches of 2,048, weight decay 1e-4, bfloat16, images of 224 "
    "pixels; 16,000 steps at a rate of 0.8, the point of rewinding, and from there 48,000 steps in "
    "each level, of which the first tenth warms up and the others follow a cosine; 20 % of the "
    "convolutions' weights are pruned over the whole network in each level. 3 replicates (1 in the "
    "source). Random boxes of 8 to 100 % of each image are resized to 224 pixels and mirrored, "
    "drawn from the prepared central squares of 224 pixels, in the source from whole images.",
    short="A network of 3 bottleneck blocks of 8 to 32 channels on the signals of MNIST-1D (3,500 "
    "for training), batches of 100, 800 steps, a rate of 0.1, float32, no augmentation, one level "
    "for three of the source's, 16 replicates.",
    expected=[
        *accuracies({0.8**level: value for level, value in enumerate(TABLE)}, SOURCE),
        Expected(Networks("ticket", 0.8**3), SOURCE, Networks("dense"), low=0.0),
        Expected(Networks("ticket", 0.8**9), SOURCE, Networks("dense"), low=-0.01),
    ],
)


def configs(size: str) -> dict[str, ConfigDict]:
    """The ladder."""
    config = literature.ladder("resnet50")
    experiment = config.experiment
    experiment.replicates = 3
    literature.images(experiment, "imagenet", 0)
    experiment.model.name, experiment.model.options = "resnet50", ConfigDict()
    # Two segments of training images are on the device: 2 × 4 × 2,048 × 147 KiB = 2.5 GB.
    experiment.train.update(steps=64_000, eval_every=4, batch_size=2048, flip=True)
    experiment.train.crop_area = 0.08
    experiment.train.compute_dtype = "bfloat16"
    experiment.optimizer.update(name="sgd", learning_rate=0.8, weight_decay=1e-4)
    experiment.optimizer.schedule = "constant_cosine"
    experiment.prune.update(scope="globally", rate=0.2, levels=18, groups=("*Conv_*",))
    if literature.checked(size) == literature.SHORT:
        experiment.replicates = 16
        literature.signals(experiment, "resnet", blocks=(1, 1, 1), width=8, bottleneck=True)
        experiment.train.update(steps=800, eval_every=100, batch_size=100, compute_dtype="float32")
        experiment.optimizer.learning_rate = 0.1
        experiment.prune.update(rate=1 - 0.8**3, levels=4)
    experiment.rewind.step = experiment.train.steps // 4  # the schedule warms up here
    return {"imp": config}


get_config = literature.picker(configs)
