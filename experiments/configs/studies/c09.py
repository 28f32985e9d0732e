"""C9, Mixup and CutMix: whether they change which weights a ticket keeps."""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """An MLP 64-64-64-10 on digits, one-shot tickets at a tenth of the weights."""
    common.check_size(size)
    config = base.ladder()
    experiment = config.experiment
    experiment.replicates, experiment.seed = 48, common.PRIMARY_SEED
    experiment.data.update(name="digits", validation=200)
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=500, eval_every=250, batch_size=64)
    experiment.optimizer.learning_rate = 3e-3
    experiment.prune.update(scope="layerwise", rate=0.9, levels=1)
    experiment.controls = ("shuffle",)
    config.study = ConfigDict(
        {
            "delta": 0.05,  # of Cohen's kappa
            "mixup": 0.4,
            "cutmix": 1.0,
            "smoothing": 0.1,
            "control_seeds": 64,
        }
    )
    if size == "full":
        common.lenet(config, steps=5000)
    return config
