"""Networks of one's own making: where each starts, as one population, and what became of it."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from lth_jax import trees
from lth_jax.lottery import Label, Programs, Task
from lth_jax.lottery.member_table import MemberSpec, StepRange
from lth_jax.lottery.node_training import Assignment, train_node
from lth_jax.lottery.stability import member_at
from lth_jax.population import Plan
from lth_jax.population.segment import Member
from lth_jax.population.train_chunks import chunks
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.store import Node, Partial


class Start(NamedTuple):
    """Where a network of one's own making starts; leaves by name, without a member axis.

    Attributes:
      params: masked when training starts.
      mask: True = kept.
      state: the model's.
      data_key: decides the order of its batches.
      hyper: what differs from the experiment's numbers.
      replicate: whose share of the training data it sees.
    """

    params: dict[str, NDArray]
    mask: dict[str, NDArray]
    state: dict[str, NDArray]
    data_key: Any
    hyper: Mapping[str, float] = MappingProxyType({})
    replicate: int = 0


def members_of(task: Task, starts: Sequence[Start]) -> Member:
    """All starts as one population, made by one program."""
    like = task.shapes

    def member(start: Start) -> tuple[Any, ...]:
        params, mask = (trees.from_named(tree, like[0]) for tree in (start.params, start.mask))
        numbers = {**task.hyper, **start.hyper}
        hyper = {name: np.float32(value) for name, value in numbers.items()}
        state = trees.from_named(start.state, like[1])
        return hyper, params, state, mask, start.data_key, np.int32(start.replicate)

    parts = trees.stack([member(start) for start in starts])
    return jax.jit(jax.vmap(functools.partial(member_at, task.trainer)))(*parts)


def train_starts(
    task: Task,
    programs: Programs,
    plan: Plan,
    starts: Sequence[Start],
    save_seconds: float,
    partial: Partial,
) -> Node:
    """A chunk of starts, trained like a chunk of a ladder: a kill repeats `save_seconds` at most.

    Args:
      task: what they train.
      programs: of the task's trainer.
      plan: how they train; they are at most `plan.chunk`.
      starts: where each begins.
      save_seconds: how much training a kill may repeat.
      partial: where the unfinished node is kept.
    """
    [rows] = chunks(len(starts), plan.chunk)
    specs = [MemberSpec("", Label("retrained", i), []) for i in range(len(starts))]
    steps = StepRange(0, task.steps, {"end": task.steps}, [])
    return train_node(
        programs.segment(plan),
        programs.measure(plan),
        trees.index(members_of(task, starts), rows),
        task.data,
        Assignment(0, specs, steps, [None] * plan.chunk),
        prunable=prunable_leaves(task.shapes[0]),
        eval_every=task.trainer.eval_every,
        serve=programs.serve,
        partial=partial,
        on_progress=lambda progress: None,
        save_seconds=save_seconds,
        constants=task.trainer.constants,
    )


def fingerprint(start: Start) -> str:
    """The SHA-256 of all arrays and numbers of a start."""
    hashed = hashlib.sha256()
    key_data = np.asarray(jax.random.key_data(start.data_key))
    for tree in (start.params, start.mask, start.state, {"data_key": key_data}):
        for leaf_name, leaf in sorted(tree.items()):
            array = np.ascontiguousarray(leaf)
            hashed.update(f"{leaf_name}{array.dtype.str}{array.shape}".encode())
            hashed.update(array.data)
    hashed.update(f"{sorted(start.hyper.items())}{start.replicate}".encode())
    return hashed.hexdigest()
