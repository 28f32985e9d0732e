"""Lower bounds of the members, memory and disk space of an experiment.

Activations, copies and temporaries of compiled programs are not counted, so that nothing is
rejected that would fit.
"""

import math
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.networks import Shapes
from experiments.trainers import hyper, make_optimizer
from lth_jax.cli import parts
from lth_jax.cli.programs import UserError
from lth_jax.machine import free_disk, in_units
from lth_jax.population import free_bytes, host_free_bytes
from lth_jax.pruning import schedules
from lth_jax.store.garbage import size_of
from lth_jax.sweeps import Estimate

BOOKKEEPING = 1024  # host bytes per member: label, key, entry in a manifest
EVALUATION = 64  # host bytes per evaluation: step and entry in the history
METRIC_BYTES = 16  # per member and evaluation: loss and accuracy, training and validation
FLOAT = 4


def levels(prune: ConfigDict) -> int:
    """The number of levels after the dense networks."""
    return int(prune.levels + prune.retrain)


def density(prune: ConfigDict, level: int) -> float:
    """The density of a level without `prune.layer_rates`."""
    found = parts.choose("prune.schedule", prune.schedule, schedules.SCHEDULES)
    if not parts.is_own(prune.schedule):
        given = {name: prune[name] for name in ("rate", "levels", "final")}
        found = parts.call("prune.schedule", prune.schedule, found, **given)
    return float(found(level))


def arms(experiment: ConfigDict, level: int) -> int:
    """The number of arms of a level."""
    only = experiment.control_levels
    return 1 + len(experiment.controls) * (level > 0 and (not only or level in only))


def members(experiment: ConfigDict) -> int:
    """The number of networks of an experiment.

    >>> from experiments.configs import base
    >>> members(base.ladder().experiment)  # 5 replicates, 10 levels, 3 controls
    205
    """
    number = levels(experiment.prune)
    controlled = len(experiment.control_levels) or number
    return experiment.replicates * (1 + number + controlled * len(experiment.controls))


def check_members(experiment: ConfigDict) -> None:
    """Raises `UserError` if labels and histories of all members exceed the host's memory."""
    free, whose = host_free_bytes(), "this machine's memory"
    count, replicates = members(experiment), experiment.replicates
    depth = experiment.prune.levels
    many = ("replicates", replicates) if replicates > depth else ("prune.levels", depth)
    _refuse_above(free, BOOKKEEPING * count, *many, f"its {count:,} members", whose)
    train = experiment.train
    evaluations = -(-train.steps // train.eval_every)
    needed = evaluations * (EVALUATION + METRIC_BYTES * replicates)
    what = f"the history of {evaluations:,} evaluations"
    _refuse_above(free, needed, "train.steps", train.steps, what, whose)


def estimate(config: ConfigDict, found: Shapes) -> Estimate:
    """Lower bounds for an experiment."""
    experiment, machine = config.experiment, config.machine
    every = range(levels(experiment.prune) + 1)
    widest = experiment.replicates * max(arms(experiment, level) for level in every)
    optimizer = make_optimizer(experiment)(hyper(experiment))
    params, state = size(found.params), size(found.state)
    slots = size(jax.eval_shape(optimizer.init, found.params))
    masks = sum(leaf.size for leaf in jax.tree.leaves(found.params))
    member = params + state + slots + masks
    rows = min(experiment.train.eval_every, experiment.train.steps) * experiment.train.batch_size
    training = member + params + state + params + FLOAT * rows
    # The devices of a CPU share its memory.
    shared = jax.default_backend() == "cpu"
    devices = 1 if shared else machine.devices or jax.device_count()
    stored = tuple(params * (density(experiment.prune, level) if level else 1.0) for level in every)
    kept = sum(arms(experiment, level) * size for level, size in enumerate(stored))
    return Estimate(
        members=members(experiment),
        widest=widest,
        chunk=-(-machine.chunk // devices) or 1,
        member=member,
        training=training,
        store=math.floor(experiment.replicates * kept),
        stored=stored,
    )


def check_fits(config: ConfigDict, found: Shapes) -> Estimate:
    """Raises `UserError` for a field that needs more memory or disk space than is free.

    Returns:
      The estimate.
    """
    experiment, machine = config.experiment, config.machine
    plan, memory = estimate(config, found), free_bytes()
    free_of = "the memory of a device"
    rows = FLOAT * min(experiment.train.eval_every, experiment.train.steps)
    batches = ("train.eval_every", experiment.train.eval_every)
    steps = "the order of the batches between two evaluations of a member"
    _refuse_above(memory, rows * experiment.train.batch_size, *batches, steps, free_of)
    network = ("model.options", experiment.model.options.to_dict())
    _refuse_above(memory, plan.training, *network, "one member in training", free_of)
    chunk = ("machine.chunk", machine.chunk)
    what = f"{plan.chunk:,} members on each device, {in_units(plan.training)} each"
    _refuse_above(memory, plan.chunk * plan.training, *chunk, what, free_of)
    many = ("replicates", experiment.replicates)
    what = f"the {plan.widest:,} members of a level, {in_units(plan.member)} each"
    _refuse_above(memory, plan.widest * plan.member, *many, what, free_of)
    _check_disk(plan, machine.workdir, *many)
    return plan


def check_fits_together(plan: Estimate, workdir: str, cells: int) -> None:
    """Raises `UserError` if the cells of a sweep need more memory or disk space than is free."""
    needed, what = BOOKKEEPING * plan.members, f"the {plan.members:,} members of all cells"
    cells_of = ("--sweep.FIELD", f"a grid of {cells:,} cells")
    _refuse_above(host_free_bytes(), needed, *cells_of, what, "this machine's memory")
    _check_disk(plan, workdir, *cells_of)


def _check_disk(plan: Estimate, workdir: str, field: str, value: Any) -> None:
    disk = free_disk(workdir)
    if disk is not None and plan.store > disk:
        held = disk + size_of(Path(workdir))  # some members may be stored already
        what = f"{plan.members:,} members in the store"
        _refuse_above(held, plan.store, field, value, what, f"the disk of '{workdir}'")


def _refuse_above(
    limit: int | None, needed: int, field: str, value: Any, what: str, whose: str
) -> None:
    if limit is None or needed <= limit:
        return
    raise UserError(
        f"`{field}` is {value}; at least {in_units(needed)} are needed for {what}, but {whose} "
        f"has {in_units(limit)} free."
    )


def size(tree: Any) -> int:
    """The bytes of all leaves of a tree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
