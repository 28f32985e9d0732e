"""Masks of one shot, by any criterion, for all replicates of a study at once."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import scoring
from experiments.networks import module
from lth_jax import trees
from lth_jax.lottery import Lab
from lth_jax.pruning import masks, schedules, scopes
from lth_jax.pruning.iterative import iterate
from lth_jax.pruning.prune import Pruner, prune
from lth_jax.types import Batch

Named = Mapping[str, NDArray]
"""Arrays by the name of their leaf."""


def mask_maker(
    lab: Lab, config: ConfigDict, name: str
) -> Callable[[Sequence[Named]], dict[str, NDArray]]:
    """`[params by leaf, …] -> masks by leaf`, for all replicates at once.

    Replicate r's criterion sees the first examples of its own share of the training data.

    Args:
      lab: what the replicates train with.
      config: `study` holds `density`, `examples` and SynFlow's `rounds`.
      name: of the criterion.
    """
    study, share = config.study, config.experiment.train.share
    example = lab.data.train.x[:1]
    like = jax.eval_shape(lab.trainer.model.init, lab.root, example)[0]
    prunable = masks.prunable_leaves(like)
    pruner = partial(_pruner(lab, config, name, like, prunable), prunable=prunable)

    @jax.jit
    @jax.vmap
    def choose(params: Any, batch: Batch, key: Any) -> Any:
        return pruner(params, masks.ones_like(params), key=key, batches=(batch,))

    def make(points: Sequence[Named]) -> dict[str, NDArray]:
        rows = share * np.arange(len(points))[:, None] + np.arange(study.examples)
        batches = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], lab.data.train)
        params = trees.stack([trees.from_named(dict(point), like) for point in points])
        chosen = choose(params, batches, jax.random.split(lab.root, len(points)))
        return {leaf: np.asarray(mask) for leaf, mask in trees.to_named(chosen).items()}

    return make


def _pruner(lab: Lab, config: ConfigDict, name: str, like: Any, prunable: Any) -> Pruner:
    """One shot by a criterion; SynFlow in rounds, and what is random within layers."""
    study = config.study
    scope = scopes.layerwise() if name == "random" else scopes.globally()
    criterion = scoring.criterion(name, lab, module(config.experiment), None)
    pruner = prune(criterion, scope)
    if name != scoring.SYNFLOW:
        count = scope.counts(like, study.density, prunable=prunable)
        return lambda params, mask, **inputs: pruner(params, mask, count, **inputs)
    schedule = schedules.exponential(study.rounds, study.density)
    levels = range(1, study.rounds + 1)
    counts = [scope.counts(like, schedule(level), prunable=prunable) for level in levels]
    return iterate(pruner, trees.stack(counts))
