"""Instability analysis of ladders at several rewind steps, as Frankle et al. (2020) did it."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import landscape, trees
from lth_jax.analysis.arguments import CHUNK, LEVELS, AnalysisError, check_known, checked
from lth_jax.analysis.measurement import (
    About,
    Measurement,
    basis,
    converged,
    keep,
    levels_of,
    require,
)
from lth_jax.coding.stored import Named, Stored, rewound
from lth_jax.keys import derive
from lth_jax.legal import whole
from lth_jax.lottery import Result
from lth_jax.lottery.stability import between_children, member_at
from lth_jax.population import Plan, train_population
from lth_jax.population.segment import Member
from lth_jax.report import stability as room
from lth_jax.store.analyses import add_analysis
from lth_jax.types import DENSE, TICKET, Batch

RENEWAL = 100  # batches shown to a network between two others, if it has BatchNorm
Start = tuple[Stored, tuple[Named, Named]]


@checked(levels=LEVELS, children=whole(2, 1000), points=whole(3, 10_000), chunk=CHUNK)
def stability(
    run: Result | Sequence[Result],
    *,
    levels: Sequence[int] | None = None,
    children: int = 2,
    points: int = 11,
    chunk: int = 0,
) -> Measurement:
    """The error barriers between children of one network that differ in their data order alone.

    At each level the network at the rewind step, under the level's mask, is trained several times
    to the end. A start is stable if the error on the line between two children rises nowhere above
    the mean of theirs (Frankle, Dziugaite, Roy and Carbin, 2020, "Linear mode connectivity and the
    lottery ticket hypothesis").

    Args:
      run: a finished run, or runs of one ladder that rewind to different steps, in one store. Each
        lists the barriers of all.
      levels: all by default.
      children: of each start.
      points: α on each line, the ends included.
      chunk: children trained at a time, which decides their last bits; 0 for all of a level.

    Returns:
      The barriers by level and rewind step.

    Raises:
      AnalysisError: a run lacks a level or has no accuracy, or the runs lie in different stores.
      store.StoreError: something in the store is damaged.
    """
    runs = [run] if isinstance(run, Result) else list(run)
    if len({one.store.root.resolve() for one in runs}) != 1:
        raise AnalysisError("`run` must be runs in one store; give `lottery.run` one `store`.")
    for one in runs:
        require(one, accuracy=True, on_device=True)
        check_known("levels", levels or (), levels_of(one))
    settings = {"children": children, "points": points, "chunk": chunk}
    listed = [(one, i) for one in runs for i in levels or levels_of(one)]
    found = [node for one, level in listed for node in _level(one, level, settings)]
    for one in runs:
        for key, labels in found:
            add_analysis(one.path, key, labels)
    return Measurement(room, runs[-1])


def _level(run: Result, level: int, settings: dict[str, int]) -> list[tuple[str, About]]:
    """The node of one level of a run, and its labels; none if all its networks diverged."""
    starts = [
        (one, rewound(run.store, run.info, one))
        for one in converged(run, (DENSE, TICKET))
        if one.level == level
    ]
    if not starts:
        return []
    labels = {"kind": "stability", "level": level, "rewind": run.rewind_step}
    networks = [one.key for one, _ in starts]
    decided = basis(run, "analysis.stability", "landscape", "lottery")
    what = {**decided, **settings, "networks": networks}
    return [(keep(run, what, labels, partial(_measured, run, starts, **settings)), labels)]


def _measured(
    run: Result, starts: Sequence[Start], *, children: int, points: int, chunk: int
) -> tuple[About, About]:
    task = run.task
    members = children_of(run, starts, children)
    size = len(starts) * children
    members, _, _ = train_population(
        task.trainer,
        members,
        task.data.train,
        task.data.validation,
        plan=Plan(min(chunk or size, size)),
        start=run.rewind_step,
        stop=task.steps,
    )
    has_state = bool(jax.tree.leaves(members.state))
    renewal = renewal_of(task.data.train, task.batch_size) if has_state else None
    alphas = jnp.linspace(0.0, 1.0, points)
    lines = jax.jit(
        lambda m: between_children(task.trainer, m, children, task.data, alphas, renewal)
    )(members)
    errors = {split: 1 - np.asarray(found["accuracy"]) for split, found in lines.items()}
    arrays = {
        "alphas": np.asarray(alphas),
        "alive": np.asarray(members.alive).reshape(len(starts), -1).all(axis=1),
        **{f"{split}_error": values for split, values in errors.items()},
        **{f"{split}_loss": np.asarray(found["loss"]) for split, found in lines.items()},
        **{f"{s}_error_barrier": landscape.barrier(values) for s, values in errors.items()},
    }
    facts = {"density": starts[0][0].density, "replicates": [one.replicate for one, _ in starts]}
    return arrays, facts


def renewal_of(data: Batch, size: int) -> Batch:
    """So many batches, leaves `[RENEWAL, size, ...]`; where the data are few they come again."""
    rows = np.arange(RENEWAL * size).reshape(RENEWAL, size) % len(jax.tree.leaves(data)[0])
    return trees.index(data, rows)


def children_of(run: Result, starts: Sequence[Start], count: int) -> Member:
    """The population: `count` members of each start, which differ in their data order alone."""
    task = run.task
    like = task.shapes
    members = []
    for one, (params, state) in starts:
        point = (trees.from_named(params, like[0]), trees.from_named(state, like[1]))
        mask = trees.from_named(one.mask, like[0])
        for i in range(count):
            data_key = derive(run.replicate_seeds.root, one.replicate, "child", i)
            place = (*point, mask, data_key, one.replicate)
            members.append(member_at(task.trainer, task.hyper, *place))
    return trees.stack(members)
