"""Instability analysis of ladders at several rewind steps, after Frankle et al. (2020)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import landscape, trees
from lth_jax.analysis.arguments import CHUNK, LEVELS, AnalysisError, check_known, checked
from lth_jax.analysis.measurement import Found, Measurement, Point, RunContext
from lth_jax.coding.stored import Stored, rewound
from lth_jax.keys import derive
from lth_jax.legal import whole
from lth_jax.lottery import Result
from lth_jax.lottery.stability import between_children
from lth_jax.report import stability as reports
from lth_jax.types import DENSE, TICKET, Batch

PACKAGES = ("analysis.stability", "landscape", "lottery")
RENEWAL = 100  # batches for the BatchNorm statistics of a network between two others


@checked(levels=LEVELS, children=whole(2, 1000), points=whole(3, 10_000), chunk=CHUNK)
def stability(
    run: Result | Sequence[Result],
    *,
    levels: Sequence[int] | None = None,
    children: int = 2,
    points: int = 11,
    chunk: int = 0,
) -> Measurement:
    """Measures error barriers between children of one network that differ only in data order.

    At each level the network at the rewind step, under the level's mask, is trained several times
    to the end. The barrier is the largest error on the line between two children minus the mean of
    their errors; a start is stable if it is about 0 (Frankle, Dziugaite, Roy and Carbin, 2020,
    "Linear mode connectivity and the lottery ticket hypothesis").

    Args:
      run: a finished run, or runs of one ladder with different rewind steps, in one store. Each
        lists the barriers of all.
      levels: the levels; all by default.
      children: number of children of each start.
      points: number of values of α on each line, including the ends.
      chunk: number of children trained at a time, which affects the last bits; 0 for all of a
        level.

    Returns:
      The barriers by level and rewind step.

    Raises:
      AnalysisError: if a run lacks a level or an accuracy, or the runs are in different stores.
    """
    runs = [run] if isinstance(run, Result) else list(run)
    stores = {one.store.root.resolve() for one in runs}
    if len(stores) != 1:
        raise AnalysisError(
            f"`run` holds runs of {len(stores)} stores; they must be of one: train them with the "
            "same `store`."
        )
    required: Any = {"accuracy": True, "on_device": True, "listed_with": runs}
    contexts = [RunContext(one, *PACKAGES, **required) for one in runs]
    for context in contexts:
        check_known("levels", levels or (), context.levels)
    settings = {"children": children, "points": points, "chunk": chunk}
    for context in contexts:
        for level in levels or context.levels:
            networks = list(context.converged(DENSE, TICKET, levels=(level,)))
            labels = {"kind": "stability", "level": level, "rewind": context.run.rewind_step}
            measure = partial(_measured, context, networks, **settings)
            if networks:
                context.keep(labels, measure, networks=[o.key for o in networks], **settings)
    return Measurement(reports, runs[-1])


def _measured(
    context: RunContext, networks: Sequence[Stored], *, children: int, points: int, chunk: int
) -> Found:
    run, task = context.run, context.task
    origins = zip(rewound(run.store, run.info, networks), networks, strict=True)
    starts = [Point(*origin, one.mask) for origin, one in origins]
    members, _ = context.train(
        [
            context.member(start, derive(context.root, one.replicate, "child", i), one.replicate)
            for one, start in zip(networks, starts, strict=True)
            for i in range(children)
        ],
        chunk,
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
    replicates = [one.replicate for one in networks]
    return arrays, {"density": networks[0].density, "replicates": replicates}


def renewal_of(data: Batch, size: int) -> Batch:
    """Batches as leaves `[RENEWAL, size, ...]`; small data are repeated."""
    rows = np.arange(RENEWAL * size).reshape(RENEWAL, size) % len(jax.tree.leaves(data)[0])
    found: Batch = trees.index(data, rows)
    return found
