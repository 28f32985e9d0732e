"""Criteria of a config: what they look at, and where they get it."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments import parts
from experiments.flags import UserError
from lth_jax import keys, trees
from lth_jax import structure as st
from lth_jax.lottery import Task
from lth_jax.pruning import criteria
from lth_jax.types import Batch

CRITERIA: dict[str, Callable[[Any], criteria.Criterion]] = {
    "magnitude": lambda loss: criteria.magnitude(),
    "random": lambda loss: criteria.random(),
    "movement": lambda loss: criteria.movement(),
    "magnitude_increase": lambda loss: criteria.magnitude_increase(),
    "large_final_same_sign": lambda loss: criteria.large_final_same_sign(),
    "lamp": lambda loss: criteria.lamp(),
    "saliency": criteria.saliency,
    "snip": criteria.snip,
    "grasp": criteria.grasp,
    "fisher": criteria.fisher,
    "obd": criteria.obd,
}
UNIT_CRITERIA: dict[str, Callable[[st.Structure], criteria.Criterion]] = {
    "norm_scales": st.norm_scales,
}
INPUT_CRITERIA: dict[str, Callable[[Any], criteria.Criterion]] = {
    "wanda": criteria.wanda,
    "activation_norms": criteria.activation_norms,
}
SYNFLOW = "synflow"
NAMES = (*CRITERIA, *UNIT_CRITERIA, *INPUT_CRITERIA, SYNFLOW)
ROOT = keys.from_seed(0)
"""Of what criteria draw: the same for all seeds of an experiment."""
NEED_EXAMPLES = ("saliency", "snip", "grasp", "fisher", "obd", *INPUT_CRITERIA)


def criterion(name: str, task: Task, module: Any, found: st.Structure | None) -> criteria.Criterion:
    """The criterion of this name.

    Args:
      name: a key of one of the tables.
      task: what the experiment trains with.
      module: its network, of any framework.
      found: the network's units, where they are pruned.
    """
    example = jax.tree.map(lambda leaf: leaf[:1], task.data.train.x)
    if parts.is_own(name):
        return _own(name, task, example, found)
    if found is not None and name in UNIT_CRITERIA:
        return UNIT_CRITERIA[name](found)
    if name == SYNFLOW:
        return criteria.synflow(_forward(task, example), example)
    if name in INPUT_CRITERIA:
        _check_inputs(name, task, example)
        return INPUT_CRITERIA[name](_inputs(name, module, task, example))
    return CRITERIA[name](_score_loss(task, example) if name in NEED_EXAMPLES else None)


def _own(name: str, task: Task, example: Any, found: st.Structure | None) -> criteria.Criterion:
    """A user's criterion, or what their function makes of `loss`, `apply` or `structure`."""
    function = parts.load("prune.criterion", name)
    if {"mask", "params"} <= set(inspect.signature(function).parameters):
        return function
    loss, apply = _score_loss(task, example), _forward(task, example)
    given = {"loss": loss, "apply": apply, "example": example, "structure": found}
    return parts.call("prune.criterion", name, function, **given)


def _score_loss(task: Task, example: Any) -> Callable[[Any, Batch], jax.Array]:
    """The loss that criteria differentiate: as in training, so BatchNorm sees its own batch."""
    state, dropout = _state(task, example), keys.stream(ROOT, "score")

    def loss(params: Any, batch: Batch) -> jax.Array:
        out, _ = task.trainer.model.apply(params, state, batch.x, key=dropout, train=True)
        return jnp.mean(task.trainer.loss(out, batch.y))

    return loss


def _state(task: Task, example: Any) -> Any:
    """The state of the network at an initialisation of its own."""
    return task.trainer.model.init(keys.stream(ROOT, "state"), example)[1]


def _check_inputs(name: str, task: Task, example: Any) -> None:
    params, _ = task.shapes
    unseen = [leaf for leaf in trees.names(params) if "recurrent_kernel" in leaf]
    if unseen:
        raise UserError(
            f"`prune.criterion` is '{name}', which looks at what each weight reads, but what "
            f"'{unseen[0]}' reads inside its loop over time cannot be seen."
        )


def _forward(task: Task, example: Any) -> Callable[[Any, Any], Any]:
    """The network as it computes when it is tested, as at its initialisation."""
    state = _state(task, example)
    return lambda params, x: task.trainer.model.apply(params, state, x, train=False)[0]


def _inputs(name: str, module: Any, task: Task, example: Any) -> Any:
    """What the weights of the network read in training: `criteria.linen_inputs`."""
    if not isinstance(module, nn.Module):
        raise UserError(
            f"`prune.criterion` is '{name}', which needs the inputs of each layer; they are known "
            "for Linen modules alone, and `model.name` is of another framework."
        )
    state, dropout = _state(task, example), keys.stream(ROOT, "score")

    def forward(params: Any, batch: Batch, mutable: Any) -> Any:
        variables, rngs = {"params": params, **state}, {"dropout": dropout}
        return module.apply(variables, batch.x, train=True, rngs=rngs, mutable=[*mutable, *state])

    return criteria.linen_inputs(forward)


def batches(train: Batch, examples: int) -> tuple[Batch, ...] | None:
    """The training examples that a criterion sees; None for none."""
    return (jax.tree.map(lambda a: a[:examples], train),) if examples else None
