"""A small ladder with its controls for each family of networks; each takes minutes on two cores.

* `families.py` or `families.py:vision`: a convolutional network on digits, with label smoothing;
* `families.py:mnist`: the same network on 5,000 images of MNIST in `--config.machine.manual_dir`;
* `families.py:language`: a Transformer predicts the characters of Python's help texts;
* `families.py:recurrent`: a GRU recalls the first of 16 symbols;
* `families.py:addition`: a Transformer adds modulo a prime;
* `families.py:tabular`: an MLP on two groups with different rules (`data.tabular.grouped`);
* `families.py:planted`: an MLP on labels of a sparse teacher (`data.planted`).

Expected accuracy of the dense networks: recall, addition and the planted task can be solved
exactly. On the tabular data, the majority's rule alone gives 97 % (`1 - minority * gap`), separate
rules for the groups 100 %. On the digits, scikit-learn's `SVC()`, trained on the same 1,137
examples, reaches 98.9 % on the test set; with 5,000 images of MNIST it reaches 95.5 % (mean of
three draws). On the text, n-grams with interpolated counts need 4.75, 3.74, 2.86 and 2.47 bits per
character with 0, 1, 2 and 3 characters of context (Python 3.11's help; the same windows).
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from experiments.configs import base
from lth_jax.legal import check_name


def get_config(family: str = "vision") -> ConfigDict:
    """A ladder of one family.

    Args:
      family: a key of `FAMILIES`.
    """
    check_name("family", family, FAMILIES)
    config = base.ladder()
    config.experiment.name = f"family_{family}"
    config.experiment.replicates = 3
    config.experiment.prune.update(rate=0.5, levels=4)
    FAMILIES[family](config.experiment)
    return config


def _vision(experiment: ConfigDict) -> None:
    experiment.model.name = "convnet"
    experiment.model.options = ConfigDict({"stages": ((8,), (16,)), "hidden": (32,)})
    experiment.train.update(steps=500, batch_size=32, label_smoothing=0.1)
    experiment.optimizer.update(learning_rate=5e-3, schedule="cosine")


def _mnist(experiment: ConfigDict) -> None:
    experiment.data.update(name="mnist", validation=1000, train_examples=5000)
    experiment.model.name = "convnet"
    experiment.model.options = ConfigDict({"stages": ((8,), (16,)), "hidden": (32,)})
    experiment.train.update(steps=400, batch_size=32)
    experiment.optimizer.update(learning_rate=1e-2, schedule="cosine")


def _language(experiment: ConfigDict) -> None:
    experiment.data.update(name="text", validation=100, train_examples=2000)
    experiment.data.options = ConfigDict({"window": 32, "unit": "bytes", "limit": 100_000})
    experiment.model.name = "transformer_decoder"
    experiment.model.options = ConfigDict(
        {"width": 32, "layers": 1, "heads": 2, "hidden": 64, "vocabulary": 256, "classes": 256}
    )
    experiment.train.update(steps=2000, batch_size=16, eval_every=200)
    experiment.optimizer.update(learning_rate=1e-2, schedule="cosine", warmup=50)
    experiment.prune.update(rate=0.6, levels=3)


def _recurrent(experiment: ConfigDict) -> None:
    experiment.data.name = "delayed_recall"
    experiment.data.options = ConfigDict({"symbols": 16, "delay": 8})
    experiment.model.name = "gru"
    experiment.model.options = ConfigDict({"width": 32, "vocabulary": 16, "classes": 16})
    experiment.train.update(steps=500, batch_size=64)
    experiment.optimizer.learning_rate = 1e-2


def _addition(experiment: ConfigDict) -> None:
    experiment.data.update(name="modular_addition", validation=20)
    experiment.data.options = ConfigDict({"modulus": 23, "train": 420})
    experiment.model.name = "transformer_encoder"
    experiment.model.options = ConfigDict(
        {"width": 32, "layers": 1, "heads": 4, "hidden": 128, "vocabulary": 24, "classes": 23}
    )
    experiment.train.update(steps=800, batch_size=100)
    experiment.prune.scope = "layerwise"  # a global scope prunes too much of the attention
    experiment.optimizer.update(name="adamw", learning_rate=5e-3, weight_decay=1.0)
    experiment.optimizer.update(schedule="linear", warmup=20)


def _tabular(experiment: ConfigDict) -> None:
    experiment.data.name = "grouped"
    experiment.data.options = ConfigDict({"minority": 0.1, "gap": 0.3})
    experiment.model.options = ConfigDict({"features": (64, 2)})
    experiment.train.update(steps=2000, eval_every=200)
    experiment.optimizer.update(learning_rate=1e-2, schedule="cosine")


def _planted(experiment: ConfigDict) -> None:
    experiment.data.name = "planted"
    experiment.data.options = ConfigDict({"hidden": 8, "train": 16_000, "test": 2000})
    experiment.model.options = ConfigDict({"features": (32, 4)})
    experiment.train.update(steps=2000, batch_size=128, eval_every=200)
    experiment.optimizer.update(learning_rate=5e-3, schedule="cosine")
    experiment.prune.update(rate=0.4, levels=6)


FAMILIES: dict[str, Callable[[ConfigDict], None]] = {
    "vision": _vision,
    "mnist": _mnist,
    "language": _language,
    "recurrent": _recurrent,
    "addition": _addition,
    "tabular": _tabular,
    "planted": _planted,
}
