"""One-shot pruning of a task's trained networks, and their losses."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax import reconstruct, trees
from lth_jax.coding.stored import Named
from lth_jax.lottery import Task
from lth_jax.pruning.granularity import n_m
from lth_jax.pruning.scopes import layerwise


def one_shot(
    task: Task,
    network: Named,
    method: reconstruct.LayerMethod,
    examples: int,
    how: Mapping[str, Any],
) -> tuple[Named, Named]:
    """Weights and mask of a network after `reconstruct.prune`, by leaf name.

    Args:
      task: the task of the network.
      network: its trained weights, by leaf name.
      method: chooses and updates the weights.
      examples: number of training examples for calibration, from the first.
      how: the target: `density`, `counts`, `pattern` or `mask` of `reconstruct.prune`.
    """
    (like, state), model = task.shapes, task.trainer.model

    def forward(params: Any, x: Any) -> Any:
        return model.apply(params, state, x, train=False)[0]

    params = jax.tree.map(jnp.asarray, trees.from_named(network, like))
    x = jnp.asarray(task.data.train.x[:examples])
    params, mask, _ = reconstruct.prune(forward, params, [x], method=method, **how)
    return _named(params), _named(mask)


def one_shot_by_loss(
    task: Task,
    networks: Sequence[Named],
    examples: int,
    leaves: Collection[str],
    *,
    density: float | None = None,
    pattern: tuple[int, int] | None = None,
) -> list[tuple[Named, Named]]:
    """Weights and mask of each network after `reconstruct.wood_fisher`, by leaf name.

    Args:
      task: the task of the networks, which have no state.
      networks: trained weights, by leaf name.
      examples: number of training examples for the Fisher matrix, from the first.
      leaves: the names of the leaves that are pruned.
      density: the fraction of each layer that stays.
      pattern: n and m of an N:M pattern, instead of `density`.
    """
    (like, state), model = task.shapes, task.trainer.model
    batch = tuple(jnp.asarray(part[:examples]) for part in task.data.train[:2])

    def loss(params: Any, batch: Any) -> jax.Array:
        x, y = batch
        return jnp.mean(task.trainer.loss(model.apply(params, state, x, train=False)[0], y))

    n, m = pattern or (1, 1)
    prune = functools.partial(
        reconstruct.wood_fisher,
        loss,
        batches=[batch],
        density=n / m if density is None else density,
        scope=layerwise(),
        granularity=n_m(n, m),
        prunable=trees.from_named({name: name in leaves for name in trees.to_named(like)}, like),
        layouts=model.layouts(task.example) if model.layouts else {},
    )
    found = (prune(jax.tree.map(jnp.asarray, trees.from_named(one, like))) for one in networks)
    return [(_named(params), _named(mask)) for params, mask in found]


def _named(tree: Any) -> Named:
    return {leaf: np.asarray(value) for leaf, value in trees.to_named(tree).items()}


def mean_test_losses(task: Task, networks: Sequence[Named]) -> NDArray[np.float64]:
    """The mean loss on the test set of each network, by the task's own loss.

    Args:
      task: the task of the networks, which have no state.
      networks: weights by leaf name.

    Returns:
      float64 `[networks]`.
    """
    (like, state), (x, y) = task.shapes, map(jnp.asarray, task.data.test[:2])

    @jax.jit
    def loss(named: Any) -> jax.Array:
        outputs = task.trainer.model.apply(trees.from_named(named, like), state, x, train=False)[0]
        return jnp.mean(task.trainer.loss(outputs, y))

    stacked = jax.tree.map(jnp.asarray, trees.stack(list(networks)))
    return np.asarray(jax.lax.map(loss, stacked), np.float64)


def layer_errors(
    method: reconstruct.LayerMethod,
    keep: int,
    weights: ArrayLike,
    seen: ArrayLike,
    inputs: ArrayLike,
) -> NDArray[np.float64]:
    """The relative error of each pruned layer, on inputs that may differ from the calibration.

    Args:
      method: prunes each layer.
      keep: number of weights that stay in each layer.
      weights: `[layers, inputs, outputs]`.
      seen: calibration inputs, `[layers, rows, inputs]`.
      inputs: inputs of the error, `[layers, rows, inputs]`.
    """
    w = jnp.asarray(weights, jnp.float32)
    calibration, grams = (
        jnp.asarray(np.swapaxes(x, 1, 2) @ x, jnp.float32) for x in map(np.asarray, (seen, inputs))
    )
    pruned, _ = jax.vmap(method, (0, 0, None))(w, calibration, keep)
    return np.asarray(jax.vmap(reconstruct.layer_error)(w, pruned, grams), np.float64)
