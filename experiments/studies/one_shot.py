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
from lth_jax import keys, trees
from lth_jax.lottery import Task
from lth_jax.pruning import masks, schedules, scopes, scores
from lth_jax.pruning.iterative import iterate
from lth_jax.pruning.prune import Pruner, prune
from lth_jax.types import Key

Named = Mapping[str, NDArray]
"""Arrays by the name of their leaf."""


def mask_maker(
    task: Task, config: ConfigDict, name: str
) -> Callable[[Sequence[Named]], dict[str, NDArray]]:
    """`[params by leaf, …] -> masks by leaf`, for all replicates at once.

    Replicate r's criterion sees the first examples of its share of the training data, or of all.

    Args:
      task: what the replicates train with.
      config: `study` holds `density`, `examples` and SynFlow's `rounds`.
      name: of the criterion.
    """
    study, share = config.study, config.experiment.train.share
    scope = scopes.layerwise() if name == "random" else scopes.globally()
    criterion = scoring.criterion(name, task, module(config.experiment), None)
    root = keys.from_seed(config.experiment.seed)
    choose = chooser(
        task, root, partial(_pruner, config.study, name, prune(criterion, scope), scope)
    )

    def make(points: Sequence[Named]) -> dict[str, NDArray]:
        rows = share * np.arange(len(points))[:, None] + np.arange(study.examples)
        return choose(points, [rows])

    return make


def chooser(
    task: Task, root: Key, pruner: Callable[[Any, Any], Pruner]
) -> Callable[[Sequence[Named], Sequence[NDArray]], dict[str, NDArray]]:
    """`([params by leaf, …], [rows, …]) -> masks by leaf`, for all networks at once.

    Args:
      task: what the networks train.
      root: their experiment's key.
      pruner: `(shapes, prunable leaves) -> pruner`. It is given one batch for each of the `rows`,
        `(networks, n)`: training examples that a network is scored on.
    """
    like = task.shapes[0]
    prunable = masks.prunable_leaves(like)
    keep = pruner(like, prunable)

    @jax.jit
    @jax.vmap
    def choose(params: Any, batches: Any, key: Any) -> Any:
        everything = masks.ones_like(params)
        return keep.with_info(params, everything, prunable=prunable, key=key, batches=batches)

    def make(points: Sequence[Named], rows: Sequence[NDArray]) -> dict[str, NDArray]:
        data = jax.tree.map(jnp.asarray, task.data.train)
        batches = tuple(trees.index(data, some) for some in rows)
        params = trees.stack([trees.from_named(dict(point), like) for point in points])
        own = [keys.derive(root, i, "one_shot") for i in range(len(points))]
        chosen, infos = choose(params, batches, jnp.stack(own))
        scores.check(scores.over_rounds(infos), keep.criterion, keep.counts, prunable)
        return {leaf: np.asarray(mask) for leaf, mask in trees.to_named(chosen).items()}

    return make


def at_count(pruner: Pruner, count: Any) -> Pruner:
    """The pruner at one count, which it then no longer takes."""

    def with_info(params: Any, mask: Any, **inputs: Any) -> Any:
        return pruner.with_info(params, mask, count, **inputs)

    return Pruner(pruner.criterion, with_info, count)


def _pruner(
    study: ConfigDict, name: str, pruner: Pruner, scope: Any, like: Any, prunable: Any
) -> Pruner:
    """One shot; SynFlow in rounds."""
    if name != "synflow":
        count = scope.counts(like, study.density, prunable=prunable)
        return at_count(pruner, count)
    schedule = schedules.exponential(study.rounds, study.density)
    levels = range(1, study.rounds + 1)
    counts = [scope.counts(like, schedule(level), prunable=prunable) for level in levels]
    return iterate(pruner, trees.stack(counts))
