"""Training of networks from given weights and masks."""

import contextlib
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from lth_jax import keys, text, trees
from lth_jax.coding.stored import Named
from lth_jax.data.datasets import fingerprint as data_fingerprint
from lth_jax.lottery.identity import circumstances, training_program
from lth_jax.lottery.member_table import MemberSpec, StepRange
from lth_jax.lottery.node_training import Assignment, train_node
from lth_jax.lottery.programs import Programs
from lth_jax.lottery.spec import Label
from lth_jax.lottery.stability import member_at
from lth_jax.lottery.starts import Start, by_name, start_fingerprint
from lth_jax.population.placement import Plan
from lth_jax.population.planning import AUTO, plan_for_level
from lth_jax.population.segment import Member
from lth_jax.population.task import Task
from lth_jax.population.train_chunks import chunks
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.schema import from_node
from lth_jax.store import SAVE_SECONDS, Node, Partial, Store, content_key, fingerprint


@text.with_short_repr
class Retrained(NamedTuple):
    """Trained networks; every array has the network axis first.

    Attributes:
      results: by metric, with the names of `lottery.Result`: `test_accuracy_final` and so on.
      params: by leaf name (`trees.from_named` converts them to a tree).
      state: the models' states, by leaf name.
    """

    results: dict[str, NDArray[Any]]
    params: Named
    state: Named

    def at(self, which: Any) -> "Retrained":
        """The networks that an index or slice selects."""
        return Retrained(*jax.tree.map(lambda leaf: leaf[which], tuple(self)))

    def networks(self) -> "list[Retrained]":
        """The networks as a list."""
        return [self.at(i) for i in range(len(next(iter(self.results.values()))))]


def retrain(
    task: Task,
    starts: Sequence[Start],
    *,
    plan: Plan | str = AUTO,
    store: Store | str | Path | None = None,
    data: str | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> Retrained:
    """Trains networks from given weights and masks, as one population.

    A store keeps finished chunks under keys that cover starts, programs, data and versions. The
    same call reads them, or continues an interrupted one.

    Args:
      task: the training task.
      starts: the initial networks, at least one.
      plan: a `population.Plan`, or `"auto"` to measure candidates; the store keeps the choice.
      store: a folder or an open store for the networks; nothing is kept by default.
      data: the fingerprint of the task's data; computed from their bytes by default.
      save_seconds: seconds of training that a kill may repeat.

    Raises:
      ValueError, TypeError: an argument is invalid; nothing has been trained.

    >>> import flax.linen as nn, optax
    >>> x = np.random.default_rng(0).normal(size=(60, 4))
    >>> split = (x, (x[:, 0] > 0).astype(int))
    >>> task = Task(nn.Dense(2), split, optimizer=optax.sgd(0.1), batch_size=4, steps=10)
    >>> params = {"kernel": np.zeros((4, 2), np.float32), "bias": np.zeros(2, np.float32)}
    >>> masks = [{"kernel": np.arange(8).reshape(4, 2) % n == 0, "bias": True} for n in (1, 2)]
    >>> found = retrain(
    ...     task, [Start(params, mask, jax.random.key(0)) for mask in masks], plan=Plan(2)
    ... )
    >>> found.results["test_accuracy_final"].shape, found.params["kernel"][1, :, 1].tolist()
    ((2,), [0.0, 0.0, 0.0, 0.0])
    """
    task.check()
    named = [by_name(start) for start in starts]
    _check(task, named)
    folder = store.root if isinstance(store, Store) else store
    hyper = sorted({*task.hyper, *(name for start in starts for name in start.hyper)})
    program = training_program(task.trainer, task.data, hyper, keys.from_seed(0))
    programs = Programs(task.trainer)
    chosen = plan_for_level(
        plan,
        len(named),
        task.trainer,
        functools.partial(_members, task, named),
        task.data.train,
        task.data.validation,
        steps=task.steps,
        plan_cache=Path(folder) / "plans" if folder else None,
        cache_crowded=True,  # another plan would train finished networks again
        program=program,
        segments=programs.segment,
    )
    common = {
        "kind": "retrained",
        "numbers": dict(task.hyper),
        "program": program,
        "constants": fingerprint(task.trainer.constants),
        "data": data_fingerprint(*task.data) if data is None else data,
        "steps": task.steps,
        "plan": chosen._asdict(),
        "environment": circumstances(),
    }
    found = []
    with contextlib.ExitStack() as stack:
        if store is None:
            store = stack.enter_context(tempfile.TemporaryDirectory(prefix="lth-"))
        shelf = store if isinstance(store, Store) else Store(store)
        for rows in chunks(len(named), chosen.chunk):
            chunk = [named[row] for row in dict.fromkeys(rows.tolist())]
            key = content_key(common | {"starts": [start_fingerprint(one) for one in chunk]})
            train = functools.partial(_train_chunk, task, programs, chosen, chunk, save_seconds)
            node = from_node(shelf.node(key, train))
            end = node.points["end"]
            found.append((node.results, end.params, end.state))
    return Retrained(*jax.tree.map(lambda *leaves: np.concatenate(leaves), *found))


def _check(task: Task, starts: Sequence[Start]) -> None:
    """Raises unless all starts fit the task's network."""
    if not starts:
        raise ValueError("`starts` is empty; at least one network is needed.")
    wanted = {name: leaf.shape for name, leaf in trees.to_named(task.shapes[0]).items()}
    for i, start in enumerate(starts):
        keys.check_key(start.data_key, f"starts[{i}].data_key")
        task.check_rate(start.hyper)
        for what in ("params", "mask"):
            found = {name: np.shape(leaf) for name, leaf in getattr(start, what).items()}
            if found != wanted:
                raise ValueError(
                    f"`starts[{i}].{what}` has leaves {found}; it must have those of the task's "
                    f"network, {wanted}."
                )
        for name, leaf in start.mask.items():
            if leaf.dtype != bool:
                raise TypeError(
                    f"`starts[{i}].mask` at '{name}' has dtype {leaf.dtype}; it must be boolean."
                )


def _members(task: Task, starts: Sequence[Start]) -> Member:
    """All starts as one population."""
    like = task.shapes

    def member(start: Start) -> tuple[Any, ...]:
        params, mask = (trees.from_named(tree, like[0]) for tree in (start.params, start.mask))
        numbers = {**task.hyper, **start.hyper}
        hyper = {name: np.float32(value) for name, value in numbers.items()}
        state = trees.from_named(start.state, like[1])
        return hyper, params, state, mask, start.data_key, np.int32(start.replicate)

    parts = trees.stack([member(start) for start in starts])
    begin = functools.partial(member_at, task.trainer)
    members: Member = task.program("retrained", lambda: jax.jit(jax.vmap(begin)))(*parts)
    return members


def _train_chunk(
    task: Task,
    programs: Programs,
    plan: Plan,
    starts: Sequence[Start],
    save_seconds: float,
    unfinished: Partial,
) -> Node:
    """Trains at most `plan.chunk` starts like a chunk of a ladder."""
    [rows] = chunks(len(starts), plan.chunk)
    specs = [MemberSpec("", Label("retrained", i), []) for i in range(len(starts))]
    steps = StepRange(0, task.steps, {"end": task.steps}, [])
    return train_node(
        programs.segment(plan),
        programs.measure(plan),
        trees.index(_members(task, starts), rows),
        task.data,
        Assignment(0, specs, steps, [None] * plan.chunk),
        prunable=prunable_leaves(task.shapes[0]),
        eval_every=task.trainer.eval_every,
        serve=programs.serve,
        partial=unfinished,
        on_progress=lambda progress: None,
        save_seconds=save_seconds,
        constants=task.trainer.constants,
    )
