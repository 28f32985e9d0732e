"""C11, recurrent networks: whether there are tickets, and what tying weights does to them."""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """A tanh network of 48 units that recalls the first of eleven symbols."""
    common.check_size(size)
    config = base.ladder()
    experiment = config.experiment
    experiment.replicates, experiment.seed = 48, common.PRIMARY_SEED
    experiment.data.update(name="delayed_recall", validation=500)
    experiment.data.options = ConfigDict(
        {"symbols": 8, "delay": 10, "train": 48 * 1000 + 500, "test": 2000, "data_seed": 3}
    )
    experiment.model.name = "rnn"
    experiment.model.options = ConfigDict({"width": 48, "vocabulary": 8, "classes": 8})
    experiment.train.update(steps=400, eval_every=200, batch_size=64, share=1000)
    experiment.optimizer.update(learning_rate=3e-3, clip_norm=1.0)
    experiment.prune.update(scope="layerwise", rate=0.42, levels=3)
    experiment.controls = ("reinit", "shuffle")
    experiment.control_levels = (3,)
    config.study = ConfigDict(
        {
            "delta": 2.0,  # points of test accuracy, ticket − shuffle
            "rates": (1e-3, 3e-3, 1e-2),
            "pilot_seeds": 4,
            "siblings": 16,  # seeds of which masks of two data orders are compared
            "control_seeds": 48,
        }
    )
    if size == "full":
        experiment.data.options.delay = 40
        common.longer(config, 5000, width=256)
        config.study.setup += (
            " The delay is 40. Sequences stay made: only there it is known what must be remembered."
        )
    return config
