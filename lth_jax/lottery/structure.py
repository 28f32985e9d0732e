"""Removable units of a task's network."""

from typing import Any

import jax

from lth_jax import keys
from lth_jax import structure as st
from lth_jax.population.task import Task


def structure_of(task: Task) -> st.Structure:
    """The removable units among the parameters of a task's network, as it computes in testing.

    >>> import flax.linen as nn, numpy as np, optax
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> model = nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(2)])
    >>> task = Task(model, data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> [(group.name, group.units) for group in structure_of(task).groups]
    [('layers_0/bias:0', 3)]
    """
    model, example = task.trainer.model, task.example
    params, state = task.shapes
    if jax.tree.leaves(state):
        key = keys.stream(keys.from_seed(0), "state")  # any: the structure is the same
        state = jax.jit(lambda key, x: model.init(key, x)[1])(key, example)

    def apply(params: Any, x: Any) -> Any:
        return model.apply(params, state, x, train=False)[0]

    return st.find_groups(apply, params, example)
