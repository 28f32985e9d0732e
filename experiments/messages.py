"""The config fields by which error messages of the library name their arguments."""

import functools
from collections.abc import Mapping

from lth_jax.cli import messages

LIBRARY: Mapping[str, str] = {
    "steps": "train.steps",
    "eval_every": "train.eval_every",
    "score_step": "prune.score_step",
    "rate": "prune.rate",
    "final": "prune.final",
    "levels": "prune.levels",
    "minimum": "prune.minimum",
    "multiple": "prune.unit_multiple",
    "rules": "prune.layer_rates",
    "patterns": "prune.groups",
    "params": "model.options",
    "vocabulary": "model.options.vocabulary",
    "chunk": "machine.chunk",
    "devices": "machine.devices",
    "driver": "machine.driver",
    "share": "train.share",
    "train_eval_examples": "train.eval_examples",
}
"""Arguments of the library and the corresponding fields."""
DATA: Mapping[str, str] = {
    "name": "data.name",
    "seed": "data.seed",
    "validation": "data.validation",
    "train_examples": "data.train_examples",
    "unlabelled": "data.unlabelled",
    "data_dir": "machine.data_dir",
    "manual_dir": "machine.manual_dir",
}
"""Arguments of `data.load`, likewise."""

by_fields = functools.partial(messages.by_fields, names=LIBRARY)
user_errors = functools.partial(messages.user_errors, names=LIBRARY)
