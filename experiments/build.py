"""Builds data, tasks, ladders and experiments from configs."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import checks, networks, scoring, units
from experiments.estimate import density
from experiments.flags import saved_config
from experiments.messages import DATA, by_fields, user_errors
from experiments.networks import model as model  # re-exported
from experiments.trainers import task
from lth_jax import data, keys
from lth_jax import structure as st
from lth_jax.analysis import teachers
from lth_jax.cli import parts
from lth_jax.cli.programs import UserError
from lth_jax.lottery import (
    SAME_MASK,
    STRUCTURED_CONTROLS,
    Experiment,
    Ladder,
    Seeds,
    Task,
    make_experiment,
    named,
    structure_of,
)
from lth_jax.lottery.controls import Control
from lth_jax.lottery.rewind import Rewind
from lth_jax.lottery.spec import controls_at
from lth_jax.lottery.specs import LevelError, Spec, make_ladder
from lth_jax.population import free_bytes
from lth_jax.pruning import masks, schedules, scopes
from lth_jax.pruning.granularity import GRANULARITIES, Granularity
from lth_jax.pruning.methods import METHODS, Builder, Method
from lth_jax.pruning.methods.method import COMMON
from lth_jax.reconstruct import Reconstruction
from lth_jax.reconstruct.methods import METHODS as LAYER_METHODS
from lth_jax.store import find_run
from lth_jax.text import listing
from lth_jax.types import Prunable


def _most_bytes(config: ConfigDict) -> int | None:
    """The size in bytes above which training inputs stay on disk; None: always on the device."""
    train, where = config.experiment.train, config.machine.data_placement
    at_once = train.share or train.average.start or train.distill.teacher
    if where == "host" and at_once:
        raise UserError(
            "`machine.data_placement` is 'host', but `train.share`, `train.average` and "
            "`train.distill` use all training data at once; they need 'device'."
        )
    if at_once or where == "device":
        return None
    free = free_bytes()
    return 0 if where == "host" else free and free // 2


def dataset(config: ConfigDict) -> data.Dataset:
    """Loads the data set of a config, and checks the fields that depend on its size."""
    experiment, machine = config.experiment, config.machine
    most_bytes, options = _most_bytes(config), experiment.data.options.to_dict()
    with user_errors(names=DATA, options=options, under="data.options"):
        loaded = (own_data if parts.is_own(experiment.data.name) else data.load)(
            experiment.data.name,
            data_dir=machine.data_dir or f"{machine.workdir}/data",
            manual_dir=machine.manual_dir or None,
            seed=experiment.data.seed,
            validation=experiment.data.validation,
            train_examples=experiment.data.train_examples or None,
            unlabelled=experiment.data.unlabelled,
            most_bytes=most_bytes,
            **options,
        )
    checks.check_examples(experiment, len(loaded.train.y))
    distill = experiment.train.distill
    if not distill.teacher:
        return loaded
    named = f"`train.distill.teacher` is '{distill.teacher}': "
    with user_errors(names={"who": "train.distill.who"}, prefix=named):
        run = find_run(machine.workdir, distill.teacher)
        students = experiment.replicates if distill.who == teachers.OWN else 0
        network = networks.model(saved_config(run.path))
        return teachers.with_answers(
            loaded, run, network, students=students, unlabelled=distill.unlabelled
        )


def own_data(name: str, **options: Any) -> data.Dataset:
    """A user-defined data set: the result of a function of `data.options`.

    The function returns `(x, y)`, `{"train": (x, y), "test": (x, y)}`, or a TFDS builder.
    """
    settings = ("data_dir", "manual_dir", "most_bytes")
    split = {k: options.pop(k) for k in ("seed", "validation", "train_examples", "unlabelled")}
    rest = {k: v for k, v in options.items() if k not in settings}
    function = parts.load("data.name", name)
    parts.check_options("data.options", rest, function)
    made = parts.call("data.name", name, function, **rest)
    with user_errors(names=DATA, prefix=f"`data.name` is '{name}': "):
        return data.dataset_of(name, made, **split)


def seeds(experiment: ConfigDict) -> Seeds:
    """The seeds of the experiment."""
    root = keys.from_seed(experiment.seed)
    return Seeds(root, experiment.replicates, experiment.train.shared_order)


def ladder(experiment: ConfigDict, task: Task) -> Ladder:
    """The levels of an experiment: counts, pruner, rewinding, controls, methods."""
    # In a sweep, cells with other dropout rates or steps may share the trainer: use the network and
    # steps of this experiment.
    own = task.trainer._replace(model=model(experiment))
    task = task.replace(trainer=own, steps=experiment.train.steps)
    options, (params, _) = experiment.prune, task.shapes
    found = _structure(experiment, task)
    scope, granularity, prunable = _what_competes(options, params, found)
    module = networks.module(experiment)
    method = _method(options)
    spec = Spec(
        densities=[*densities(experiment, params), *([None] if options.retrain else [])],
        criterion=scoring.criterion(options.criterion, task, module, found),
        scope=scope,
        granularity=granularity,
        rewind=Rewind(**experiment.rewind.to_dict()),
        score_step=experiment.rewind.step if options.at_start else options.score_step or None,
        rounds=options.rounds,
        batches=scoring.batches(task.data.train, options.examples),
        prunable=prunable,
        methods=dict.fromkeys(range(1, options.levels + 1), method) if method else {},
        reconstruct=_reconstruction(options.reconstruct),
    )
    controls = _controls(experiment.controls, units.make_controls(found, module))
    try:
        made = make_ladder(task, spec, controls, experiment.control_levels or None)
    except LevelError as error:
        reason = by_fields(error.reason).replace("`density`", "density")
        raise UserError(
            f"`prune.levels` includes level {error.level}, which is impossible: {reason}"
        ) from error
    _check_controls(experiment, made)
    return made


def _check_controls(experiment: ConfigDict, made: Ladder) -> None:
    """Raises `UserError` for controls of another mask where level 1 starts with all weights."""
    first, method = made.methods.get(1), experiment.prune.method
    masks_only = [c for c in experiment.controls if not parts.is_own(c) and c not in SAME_MASK]
    if first and first.starts_dense and masks_only and controls_at(made, 1):
        raise UserError(
            f"`controls` includes {listing(masks_only)}, but at level 1 `prune.method={method}` "
            "starts with all weights: such a control of another mask equals the ticket. Leave it "
            f"out, or set `prune.retrain` and `control_levels={experiment.prune.levels + 1}`."
        )


def densities(experiment: ConfigDict, params: Any) -> list[Any]:
    """The density of each level from 1 on: a number, or a tree with `prune.layer_rates`."""
    options = experiment.prune
    own = {pattern: schedules.geometric(rate) for pattern, rate in options.layer_rates.items()}
    levels = range(1, options.levels + 1)
    if not own:
        return [density(options, level) for level in levels]
    return [
        scopes.per_leaf(params, density(options, level), {p: f(level) for p, f in own.items()})
        for level in levels
    ]


def _reconstruction(options: ConfigDict) -> Reconstruction | None:
    """How the levels reconstruct their tickets; None if they do not."""
    if not options.method:
        return None
    return Reconstruction(LAYER_METHODS[options.method](), options.mask, options.start)


def _method(options: ConfigDict) -> Builder | None:
    """The builder of the sparse training method; None for a fixed mask."""
    if options.method == "static":
        return None
    make = parts.choose("prune.method", options.method, METHODS)
    own, under = options.method_options.to_dict(), "prune.method_options"
    parts.check_options(under, own, make, without=COMMON)

    def method(**given: Any) -> Method:
        named = f"`prune.method` is '{options.method}': "
        with user_errors(prefix=named, options=own, under=under):
            return make(**own, **given)

    return method


def _structure(experiment: ConfigDict, task: Task) -> st.Structure | None:
    """The network's units if pruning or controls need them, else None."""
    if experiment.prune.granularity == units.UNITS:
        found = structure_of(task).removable(*experiment.prune.groups)
        units.check_multiple(experiment.prune.unit_multiple, found)
        return found
    chosen = (STRUCTURED_CONTROLS.get(name) for name in experiment.controls)
    return structure_of(task) if any(c and c.needs_units for c in chosen) else None


def _what_competes(
    options: ConfigDict, params: Any, found: st.Structure | None
) -> tuple[scopes.Scope, Granularity, Prunable]:
    reduction = units.REDUCTIONS[options.reduction]
    if options.granularity == units.UNITS and found is not None:
        return units.scope(options, found), st.granularity(found, reduction), st.prunable(found)
    everything = (lambda name, leaf: leaf.ndim > 0) if options.biases else None
    prunable = masks.matching(masks.prunable_leaves(params, everything), options.groups)
    made = functools.partial(parts.made, minimum=options.minimum, reduction=reduction)
    scope = made("prune.scope", options.scope, scopes.Scope, scopes.SCOPES)
    granularity = made("prune.granularity", options.granularity, Granularity, GRANULARITIES)
    return scope, granularity, prunable


def _controls(names: Sequence[str], table: Mapping[str, Control]) -> dict[str, Control]:
    """The controls of a config by name; user-defined ones have the name of their function."""
    own = {name: parts.load("controls", name) for name in names if parts.is_own(name)}
    made = {name: own.get(name) or named([name], table)[name] for name in names}
    return {name.rpartition(":")[2]: control for name, control in made.items()}


def experiment_of(config: ConfigDict, loaded: data.Dataset) -> Experiment:
    """The experiment of a config, with its identity."""
    own = task(config, loaded)
    return make_experiment(own, seeds(config), ladder(config, own), data=loaded.fingerprint)
