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
from lth_jax.lottery.structure import evaluation, initial_state
from lth_jax.pruning import criteria
from lth_jax.types import Batch, Key


def takes(name: str) -> set[str]:
    """The arguments from which a criterion is made: of `loss`, `forward`, `inputs` and so on.

    >>> takes("snip"), takes("magnitude")
    ({'loss'}, set())
    """
    make = parts.choose("prune.criterion", name, criteria.CRITERIA)
    return set(inspect.signature(make).parameters)


def needs_examples(name: str) -> bool:
    """Whether a criterion evaluates the network on training examples."""
    return not takes(name).isdisjoint(("loss", "inputs"))


def criterion(name: str, task: Task, module: Any, found: st.Structure | None) -> criteria.Criterion:
    """The criterion of this name: a key of `criteria.CRITERIA`, or a user's own.

    A user's own is a criterion, or a function that makes one from the same arguments as the
    builders of `criteria.CRITERIA`.

    Args:
      name: of the criterion.
      task: what the experiment trains with.
      module: its network, of any framework.
      found: the network's units, where they are pruned.
    """
    make, taken = parts.choose("prune.criterion", name, criteria.CRITERIA), takes(name)
    if {"mask", "params"} <= taken:
        return make
    if "inputs" in taken:
        _check_inputs(name, task)
    offered: dict[str, Callable[[], Any]] = {  # made on demand: some draw an initialisation
        "loss": lambda: _score_loss(task),
        "forward": lambda: evaluation(task),
        "example": lambda: task.example,
        "inputs": lambda: _inputs(name, module, task),
        "structure": lambda: found,
    }
    given = {key: value() for key, value in offered.items() if key in taken}
    return parts.call("prune.criterion", name, make, **given)


def stream(purpose: str) -> Key:
    """The key of what criteria and structures draw: the same for all seeds of an experiment.

    Made when it is needed: a key at import would start JAX before `jax.distributed`.
    """
    return keys.stream(keys.from_seed(0), purpose)


def _score_loss(task: Task) -> Callable[[Any, Batch], jax.Array]:
    """The loss that criteria differentiate: as in training, so BatchNorm sees its own batch."""
    state, dropout = initial_state(task), stream("score")

    def loss(params: Any, batch: Batch) -> jax.Array:
        out, _ = task.trainer.model.apply(params, state, batch.x, key=dropout, train=True)
        return jnp.mean(task.trainer.loss(out, batch.y))

    return loss


def _check_inputs(name: str, task: Task) -> None:
    params, _ = task.shapes
    unseen = [leaf for leaf in trees.names(params) if "recurrent_kernel" in leaf]
    if unseen:
        raise UserError(
            f"`prune.criterion` is '{name}', which looks at what each weight reads, but what "
            f"'{unseen[0]}' reads inside its loop over time cannot be seen."
        )


def _inputs(name: str, module: Any, task: Task) -> Any:
    """What the weights of the network read in training: `criteria.linen_inputs`."""
    if not isinstance(module, nn.Module):
        raise UserError(
            f"`prune.criterion` is '{name}', which needs the inputs of each layer; they are known "
            "for Linen modules alone, and `model.name` is of another framework."
        )
    state, dropout = initial_state(task), stream("score")

    def forward(params: Any, batch: Batch, mutable: Any) -> Any:
        variables, rngs = {"params": params, **state}, {"dropout": dropout}
        return module.apply(variables, batch.x, train=True, rngs=rngs, mutable=[*mutable, *state])

    return criteria.linen_inputs(forward)


def batches(train: Batch, examples: int) -> tuple[Batch, ...] | None:
    """The training examples that a criterion sees; None for none."""
    return (jax.tree.map(lambda a: a[:examples], train),) if examples else None
