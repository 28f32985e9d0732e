"""Criteria of a config and their inputs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import networks
from lth_jax import keys, trees
from lth_jax import structure as st
from lth_jax.cli import parts
from lth_jax.cli.programs import UserError
from lth_jax.lottery import Start, Task, one_shot_starts
from lth_jax.lottery.structure import evaluation, initial_state, score_key, score_loss
from lth_jax.pruning import criteria
from lth_jax.pruning.iterative import iterate
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.pruning.one_shot import at_count
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import Scope
from lth_jax.types import Batch


def takes(name: str) -> set[str]:
    """The arguments of a criterion's builder, such as `loss`, `forward` and `inputs`.

    >>> takes("snip"), takes("magnitude")
    ({'loss'}, set())
    """
    make = parts.choose("prune.criterion", name, criteria.CRITERIA)
    return set(inspect.signature(make).parameters)


def needs_examples(name: str) -> bool:
    """Whether a criterion evaluates the network on training examples."""
    return not takes(name).isdisjoint(("loss", "inputs"))


def criterion(name: str, task: Task, module: Any, found: st.Structure | None) -> criteria.Criterion:
    """The criterion of this name: a key of `criteria.CRITERIA`, or user-defined.

    A user-defined one is a criterion, or a builder with the arguments of those in
    `criteria.CRITERIA`.

    Args:
      name: name of the criterion.
      task: the task of the experiment.
      module: its network, of any framework.
      found: the network's units, if they are pruned.
    """
    make, taken = parts.choose("prune.criterion", name, criteria.CRITERIA), takes(name)
    if {"mask", "params"} <= taken:
        return make
    if "inputs" in taken:
        _check_inputs(name, task)
    offered: dict[str, Callable[[], Any]] = {  # lazily: some draw an initialisation
        "loss": lambda: score_loss(task),
        "forward": lambda: evaluation(task),
        "example": lambda: task.example,
        "inputs": lambda: _inputs(name, module, task),
        "structure": lambda: found,
    }
    given = {key: value() for key, value in offered.items() if key in taken}
    return parts.call("prune.criterion", name, make, **given)


def _check_inputs(name: str, task: Task) -> None:
    params, _ = task.shapes
    unseen = [leaf for leaf in trees.names(params) if "recurrent_kernel" in leaf]
    if unseen:
        raise UserError(
            f"`prune.criterion` is '{name}', which needs the inputs of each weight, but those of "
            f"'{unseen[0]}' inside its loop over time cannot be recorded."
        )


def _inputs(name: str, module: Any, task: Task) -> Any:
    """The inputs of the network's weights in training mode: `criteria.linen_inputs`."""
    if not isinstance(module, nn.Module):
        raise UserError(
            f"`prune.criterion` is '{name}', which needs the inputs of each layer; these are "
            "available for Linen modules only, and `model.name` is of another framework."
        )
    state, dropout = initial_state(task), score_key()

    def forward(params: Any, batch: Batch, mutable: Any) -> Any:
        variables, rngs = {"params": params, **state}, {"dropout": dropout}
        return module.apply(variables, batch.x, train=True, rngs=rngs, mutable=[*mutable, *state])

    return criteria.linen_inputs(forward)


def batches(train: Batch, examples: int) -> tuple[Batch, ...] | None:
    """The training examples for a criterion; None without examples."""
    return (jax.tree.map(lambda a: a[:examples], train),) if examples else None


def one_shot(
    config: ConfigDict,
    task: Task,
    name: str,
    scope: Scope,
    densities: Sequence[float],
    starts: Sequence[Start],
    points: Sequence[Mapping[str, NDArray[Any]]],
) -> list[Start]:
    """The starts, one for each replicate, under masks of a criterion.

    The criterion scores parameters by name, at one point for each start, on the first
    `study.examples` of the replicate's training examples. Several densities are rounds of pruning.
    """
    experiment, like = config.experiment, task.shapes[0]
    pruner = prune(criterion(name, task, networks.module(experiment), None), scope)
    prunable = prunable_leaves(like)
    counts = [scope.counts(like, density, prunable=prunable) for density in densities]
    share = experiment.train.share
    rows = share * np.arange(len(starts))[:, None] + np.arange(config.study.examples)
    return one_shot_starts(
        task,
        starts,
        at_count(pruner, counts[0]) if len(counts) == 1 else iterate(pruner, trees.stack(counts)),
        keys.from_seed(experiment.seed),
        scored=points,
        rows=[rows],
    )
