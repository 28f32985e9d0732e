"""C10, attention: whether pruning its scores leaves it more focused."""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """A Transformer of one layer and four heads on sequences of 16 tokens, one of them marked."""
    common.check_size(size)
    config = base.ladder()
    experiment = config.experiment
    experiment.replicates, experiment.seed = 48, common.PRIMARY_SEED
    experiment.data.update(name="marked_recall", validation=500)
    experiment.data.options = ConfigDict(
        {"symbols": 16, "length": 16, "train": 48 * 1000 + 500, "test": 2000, "data_seed": 3}
    )
    experiment.model.name = "transformer_encoder"
    experiment.model.options = ConfigDict(
        {"width": 32, "layers": 1, "heads": 4, "hidden": 64, "vocabulary": 32, "classes": 16}
    )
    experiment.train.update(steps=300, eval_every=150, batch_size=32, share=1000)
    experiment.optimizer.learning_rate = 3e-3
    experiment.prune.update(scope="layerwise", rate=0.75, levels=2)
    experiment.controls = ("shuffle",)
    experiment.control_levels = (2,)
    config.study = ConfigDict(
        {
            "delta": 0.1,  # nats
            "top_k": 4,
            "examples": 256,  # of the test set, on which attention is looked at
            "control_seeds": 48,
        }
    )
    if size == "full":
        common.longer(config, 5000, width=128, layers=4, hidden=512)
        config.study.setup += " Sequences stay made: there it is known where attention belongs."
    return config
