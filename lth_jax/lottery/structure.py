"""A task's network in test mode, its removable units, and its loss for criteria."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import keys
from lth_jax import structure as st
from lth_jax.population.task import Task
from lth_jax.types import Batch, Key


def structure_of(task: Task) -> st.Structure:
    """The removable units of a task's network in test mode.

    The parameters may lose slices; the model's state (BatchNorm statistics) is fixed at its initial
    value. See `structure.find_groups`.

    Args:
      task: network and data, of which the shape of one example counts.

    Returns:
      The groups of units, and the reasons why other indices are in no group.

    Raises:
      ValueError: the network has no parameters or reads none, or its control flow in test mode
        depends on values.
      TypeError: the control flow of its initialisation depends on values.

    >>> import flax.linen as nn, numpy as np, optax
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> model = nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(2)])
    >>> task = Task(model, data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> [(group.name, group.units) for group in structure_of(task).groups]
    [('layers_0/bias:0', 3)]
    """
    return st.find_groups(evaluation(task), task.shapes[0], task.example)


def evaluation(task: Task) -> Callable[[Any, Any], Any]:
    """`(params, x) -> outputs` of the network in test mode, with its initial state."""
    model, state = task.trainer.model, initial_state(task)
    return lambda params, x: model.apply(params, state, x, train=False)[0]


def initial_state(task: Task) -> Any:
    """The initial state of the network."""
    _, state = task.shapes
    if not jax.tree.leaves(state):
        return state
    init, key = task.trainer.model.init, keys.stream(keys.from_seed(0), "state")
    return jax.jit(lambda key, x: init(key, x)[1])(key, task.example)


def score_loss(task: Task) -> Callable[[Any, Batch], jax.Array]:
    """`(params, batch) -> mean loss` of the network in training mode, for criteria.

    BatchNorm uses the statistics of the batch, and dropout one key for all seeds of an experiment.
    """
    state, dropout, trainer = initial_state(task), score_key(), task.trainer

    def loss(params: Any, batch: Batch) -> jax.Array:
        out, _ = trainer.model.apply(params, state, batch.x, key=dropout, train=True)
        return jnp.mean(trainer.loss(out, batch.y))

    return loss


def score_key() -> Key:
    """The dropout key of criteria; at import, a key would start JAX before `jax.distributed`."""
    return keys.stream(keys.from_seed(0), "score")
