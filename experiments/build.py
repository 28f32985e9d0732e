"""A config becomes functions: one table per kind, and every number checked before work starts."""

import math
import re
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import networks, scoring, teachers, units
from experiments.flags import UserError, fields, nearest
from experiments.networks import model as model  # part of what a config becomes
from experiments.trainers import (
    CHOICES,
    COMPUTE_DTYPES,
    LOSSES,
    LR_SCHEDULES,
    OPTIMIZERS,
    SOFTENED,
    hyper,
    trainer,
)
from lth_jax import data, keys, models
from lth_jax import structure as st
from lth_jax.lottery import REFILL_CONTROLS, Cell, Data, Lab, Ladder, make_cell, named
from lth_jax.lottery.rewind import SOURCES, WEIGHTS, Rewind
from lth_jax.pruning import masks, schedules, scopes
from lth_jax.pruning.granularity import Granularity
from lth_jax.pruning.prune import prune
from lth_jax.store import run_folder
from lth_jax.training import OnHost, Trainer, free_bytes
from lth_jax.types import Prunable

SCOPES: dict[str, Callable[[ConfigDict], scopes.Scope]] = {
    "globally": lambda prune: scopes.globally(prune.minimum),
    "layerwise": lambda prune: scopes.layerwise(),
    "erk": lambda prune: scopes.erk(),
}
SCHEDULES: dict[str, Callable[[ConfigDict], schedules.Schedule]] = {
    "geometric": lambda prune: schedules.geometric(prune.rate),
    "linear": lambda prune: schedules.linear(prune.levels, prune.final),
    "cubic": lambda prune: schedules.cubic(prune.levels, prune.final),
    "exponential": lambda prune: schedules.exponential(prune.levels, prune.final),
    "one_shot": lambda prune: schedules.one_shot(prune.final),
}


def check(experiment: ConfigDict) -> None:
    """Raises `UserError` for the first field of an experiment that cannot be right.

    What depends on the data (does the batch fit the training set?) is checked when it is there;
    everything else here, before anything is prepared or trained.
    """
    _check_numbers(experiment)
    if not re.fullmatch(r"\w[\w.-]*", experiment.name, re.ASCII):
        raise UserError(
            f"`name` is '{experiment.name}'; it must be letters, digits, '.', '_' and '-'."
        )
    pruning = experiment.prune
    choices: list[tuple[str, str, Collection[str]]] = [
        ("model.name", experiment.model.name, models.NETWORKS),
        ("train.loss", experiment.train.loss, LOSSES),
        ("train.distill.who", experiment.train.distill.who, CHOICES),
        ("train.compute_dtype", experiment.train.compute_dtype, COMPUTE_DTYPES),
        ("optimizer.name", experiment.optimizer.name, OPTIMIZERS),
        ("optimizer.schedule", experiment.optimizer.schedule, LR_SCHEDULES),
        ("prune.criterion", experiment.prune.criterion, scoring.NAMES),
        ("prune.scope", experiment.prune.scope, SCOPES),
        ("prune.schedule", experiment.prune.schedule, SCHEDULES),
        ("rewind.what", experiment.rewind.what, WEIGHTS),
        *((f"rewind.{f}", experiment.rewind[f], SOURCES) for f in ("optimizer", "state", "data")),
        ("prune.granularity", pruning.granularity, (*units.GRANULARITIES, units.UNITS)),
        ("prune.reduction", pruning.reduction, units.REDUCTIONS),
        *(("controls", c, units.control_names(pruning.granularity)) for c in experiment.controls),
    ]
    for name, value, table in choices:
        if value not in table:
            raise UserError(nearest(f"`{name}`", str(value), table))
    if experiment.prune.criterion in scoring.NEED_EXAMPLES and not experiment.prune.examples:
        raise UserError(
            f"`prune.criterion` is '{experiment.prune.criterion}', which looks at data; "
            "set `prune.examples` to how many training examples it may see."
        )
    units.check(pruning)
    _check_training(experiment)
    if experiment.prune.rates and (experiment.prune.scope, experiment.prune.schedule) != (
        "layerwise",
        "geometric",
    ):
        raise UserError("`prune.rates` needs `prune.scope=layerwise`, `prune.schedule=geometric`.")


def _check_training(experiment: ConfigDict) -> None:
    train, changed = experiment.train, ("crop", "flip", "mixup", "cutmix")
    if train.distill.teacher and any(train[name] for name in changed):
        raise UserError(
            "`train.distill` asks the teachers about the examples as they lie; set "
            f"{', '.join(f'`train.{name}`' for name in changed)} to 0."
        )
    wants, has = train.distill.unlabelled, experiment.data.unlabelled
    if wants and not (train.distill.teacher and has):
        raise UserError(
            f"`train.distill.unlabelled` is {wants}; it needs `train.distill.teacher` and "
            "`data.unlabelled`."
        )
    start = train.average.start
    if start and not experiment.rewind.step < start <= train.steps:
        raise UserError(
            f"`train.average.start` is {start}; it must lie above the rewind step, "
            f"{experiment.rewind.step}, and be at most `train.steps`, {train.steps}."
        )


POSITIVE = (
    "replicates",
    "train.steps",
    "train.eval_every",
    "train.batch_size",
    "train.average.every",
    "prune.multiple",
)
AT_LEAST_0 = (
    "prune.levels",
    "data.validation",
    "data.train_examples",
    "data.unlabelled",
    "train.crop",
    "train.distill.unlabelled",
    "train.average.start",
    "train.share",
    *(f"train.{name}" for name in ("label_noise", *SOFTENED)),
    "optimizer.warmup",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "optimizer.clip_norm",
    "prune.minimum",
    "prune.step",
    "prune.examples",
    "rewind.step",
)


def _check_numbers(experiment: ConfigDict) -> None:
    values = dict(fields(experiment))
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"`{name}` is {value}; it must be a finite number.")
    for name in ("seed", "data.seed"):
        try:
            keys.check_seed(values[name], name)
        except ValueError as error:
            raise UserError(str(error)) from error
    for name in POSITIVE:
        if values[name] < 1:
            raise UserError(f"`{name}` is {values[name]}; it must be at least 1.")
    for name in AT_LEAST_0:
        if values[name] < 0:
            raise UserError(f"`{name}` is {values[name]}; it must not be negative.")
    for name in ("train.label_noise", "train.label_smoothing", "train.distill.weight"):
        if not 0 <= values[name] <= 1:
            raise UserError(f"`{name}` is {values[name]}; a share lies in [0, 1].")
    for name in ("optimizer.learning_rate", "train.distill.temperature"):
        if values[name] <= 0:
            raise UserError(f"`{name}` is {values[name]}; it must be above 0.")
    if not 0 < values["prune.final"] <= 1:
        raise UserError(f"`prune.final` is {values['prune.final']}; a density lies in (0, 1].")
    rates = {"rate": values["prune.rate"], **{f"rates[{k}]": v for k, v in _rates(experiment)}}
    for name, value in rates.items():
        if not 0 < value < 1:
            raise UserError(f"`prune.{name}` is {value}; it must lie in (0, 1).")


def _rates(experiment: ConfigDict) -> list[tuple[str, float]]:
    return list(experiment.prune.rates.items())


def _most_bytes(config: ConfigDict) -> int | None:
    """Above how many bytes training inputs stay on disk; None if they must be on the device."""
    train, where = config.experiment.train, config.machine.data
    at_once = train.share or train.average.start or train.distill.teacher
    if where not in ("", "device", "host"):
        raise UserError(f"`machine.data` is '{where}'; it must be 'device', 'host', or empty.")
    if where == "host" and at_once:
        raise UserError(
            "`machine.data` is 'host', but `train.share`, `train.average` and `train.distill` "
            "look at all training data at once; they need 'device'."
        )
    if at_once or where == "device":
        return None
    free = free_bytes()
    return 0 if where == "host" else free and free // 2


def dataset(config: ConfigDict) -> data.Dataset:
    """Loads the data set of a config, and checks that a batch fits it."""
    experiment, machine = config.experiment, config.machine
    try:
        loaded = data.load(
            experiment.data.name,
            data_dir=machine.data_dir or f"{machine.workdir}/data",
            manual_dir=machine.manual_dir or None,
            seed=experiment.data.seed,
            validation=experiment.data.validation,
            train_examples=experiment.data.train_examples or None,
            unlabelled=experiment.data.unlabelled,
            most_bytes=_most_bytes(config),
            **experiment.data.options.to_dict(),
        )
        if experiment.train.distill.teacher:
            loaded = teachers.with_answers(experiment, machine.workdir, loaded)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise UserError(str(error)) from error
    share, batch = experiment.train.share, experiment.train.batch_size
    if share * experiment.replicates > len(loaded.train.y):
        raise UserError(
            f"`train.share` is {share}; {experiment.replicates} replicates cannot have so many of "
            f"the {len(loaded.train.y)} training examples each."
        )
    size = share or len(loaded.train.y)
    if batch > size:
        raise UserError(f"`train.batch_size` is {batch}, more than the {size} training examples.")
    return loaded


def lab(experiment: ConfigDict, loaded: data.Dataset) -> Lab:
    """What the experiment trains with, its data on the device."""
    return seeded(experiment, trainer(experiment, loaded), on_device(loaded))


def on_device(loaded: data.Dataset) -> Data:
    """A data set on the device, but for training data that stay on disk: the host reads those."""
    validation, test = jax.tree.map(jnp.asarray, (loaded.validation, loaded.test))
    if isinstance(loaded.train.x, data.OnDisk):
        return Data(OnHost(*loaded.train), validation, test)
    return Data(jax.tree.map(jnp.asarray, loaded.train), validation, test)


def seeded(experiment: ConfigDict, trainer: Trainer, splits: Data) -> Lab:
    """A trainer and its data with what an experiment adds that is traced: seeds and numbers."""
    return Lab(
        trainer=trainer,
        data=splits,
        root=keys.from_seed(experiment.seed),
        replicates=experiment.replicates,
        hyper=hyper(experiment),
        shared_order=experiment.train.shared_order,
    )


def ladder(experiment: ConfigDict, lab: Lab) -> Ladder:
    """What the experiment does: counts per level, pruner, rewinding, controls."""
    # What a criterion draws is the same for all seeds; its network is this experiment's, though a
    # sweep may train cells of other dropout rates with one trainer.
    own = lab.trainer._replace(model=model(experiment))
    lab = lab._replace(root=keys.from_seed(0), trainer=own)
    options = experiment.prune
    example = jax.tree.map(lambda a: a[:1], lab.data.train.x)
    params, _ = jax.eval_shape(lab.trainer.model.init, lab.root, example)
    found = _structure(experiment, lab)
    scope, granularity, prunable = _what_competes(options, params, found)
    module = networks.module(experiment)
    find_layouts = lab.trainer.model.layouts
    kernel_layouts = find_layouts(example) if find_layouts else {}
    # Errors about axes that are not known come now, not after the dense networks have trained.
    mask = jax.eval_shape(masks.ones_like, params)
    jax.eval_shape(
        lambda p, m: granularity.to_units(p, m, prunable=prunable, layouts=kernel_layouts).scores,
        params,
        mask,
    )
    criterion = scoring.criterion(options.criterion, lab, module, found)
    return Ladder(
        counts=[
            scope.counts(params, density, prunable=prunable, layouts=kernel_layouts)
            for density in densities(experiment, params)
        ],
        pruner=prune(criterion, scope, granularity),
        prunable=prunable,
        rewind=Rewind(**experiment.rewind.to_dict()),
        controls=named(experiment.controls, units.make_controls(found, module)),
        stop=experiment.train.steps,
        score_step=options.step or experiment.train.steps,
        control_levels=frozenset(experiment.control_levels) or None,
        batches=scoring.batches(lab.data.train, options.examples),
        layouts=kernel_layouts,
    )


def _structure(experiment: ConfigDict, lab: Lab) -> st.Structure | None:
    """The network's units where the ladder removes or refills them, else None."""
    if experiment.prune.granularity == units.UNITS:
        return units.chosen(units.structure_of(lab), experiment.prune)
    refills = set(experiment.controls) & set(REFILL_CONTROLS)
    return units.structure_of(lab) if refills else None


def _what_competes(
    options: ConfigDict, params: Any, found: st.Structure | None
) -> tuple[scopes.Scope, Granularity, Prunable]:
    reduction = units.REDUCTIONS[options.reduction]
    if options.granularity == units.UNITS and found is not None:
        scope = units.SCOPES[options.scope](found, multiple=options.multiple)
        return scope, st.granularity(found, reduction), st.prunable(found)
    everything = (lambda name, leaf: leaf.ndim > 0) if options.biases else None
    prunable = masks.prunable_leaves(params, everything)
    granularity = units.GRANULARITIES[options.granularity](reduction)
    return SCOPES[options.scope](options), granularity, prunable


def densities(experiment: ConfigDict, params: Any) -> list[Any]:
    """The density of each level from 1 on: a number, or a tree where layers have rates."""
    options = experiment.prune
    schedule = SCHEDULES[options.schedule](options)
    own = {pattern: schedules.geometric(rate) for pattern, rate in _rates(experiment)}
    levels = range(1, options.levels + 1)
    if not own:
        return [schedule(level) for level in levels]
    return [
        scopes.per_leaf(params, schedule(level), {p: f(level) for p, f in own.items()})
        for level in levels
    ]


def cell(experiment: ConfigDict, loaded: data.Dataset) -> Cell:
    """The experiment with all that decides its numbers."""
    what = lab(experiment, loaded)
    return make_cell(what, ladder(experiment, what), data=loaded.fingerprint)


def run_identity(cell: Cell) -> dict[str, Any]:
    """What decides a run's numbers besides its config: programs, data and numeric flags.

    Versions, devices and the library's own code are left out: a run may go on after an upgrade or
    on another machine, and its new nodes have keys of their own.
    """
    found = cell.identity
    return {
        "training": found.training,
        "arms": found.arms,
        "data": found.data,
        "numerics": found.environment["numerics"],
    }


def run_name(experiment: ConfigDict, cell: Cell) -> str:
    """The folder of an experiment's run."""
    return run_folder(experiment.name, experiment.to_dict(), run_identity(cell))
