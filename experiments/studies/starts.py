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
from lth_jax.lottery import Task
from lth_jax.lottery.node_training import compile_measure
from lth_jax.lottery.stability import member_at
from lth_jax.population import Plan
from lth_jax.population.segment import Member, Record
from lth_jax.population.train_chunks import chunks


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


def measured(task: Task, plan: Plan, members: Member, records: Record) -> Any:
    """All results of a population, and its networks, as many at a time as were trained."""
    measure, n = compile_measure(task.trainer, plan), members.alive.shape[0]
    found = []
    for rows in chunks(n, plan.chunk):
        some, their = (trees.index(tree, rows) for tree in (members, records))
        found.append(jax.tree.map(np.asarray, measure(some, their, task.data)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *found)


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
